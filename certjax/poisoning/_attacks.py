"""Poisoned training sets: wrong labels, samples that are added or missing, backdoors.

At random, or at given places. What a certificate counts is the symmetric difference: one for each
sample that is added or removed, so that certified answers can be held against ensembles that are
really trained on these sets. The given arrays stay as they are. On the host; a key picks NumPy's
generator, whose stream need not outlive its version: nothing is proved from it.
"""

import jax
import numpy as np


def flip_labels(key, x, y, *, num_classes: int, number=None, indices=None, label=None):
  """Training samples with wrong labels.

  Costs one sample each where a certificate's parts do not depend on labels, two else.

  Args:
    key: of the choice.
    x: uint8[N, ...], training images.
    y: int[N], labels in [0, K).
    num_classes: K.
    number: samples to flip, chosen at random (of another label than `label`); or
    indices: int[n], which ones.
    label: the new label, default a random wrong one for each.

  Returns:
    (x, y): the images as they are, labels int32[N].

  Raises:
    ValueError: if not exactly one of `number` and `indices` is given, they lie outside the training
      set or repeat, or samples are no uint8 images with labels in [0, K).

  Example:
    >>> x, y = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 1])
    >>> flip_labels(jax.random.key(0), x, y, num_classes=2, indices=[0, 2])[1]
    array([1, 1, 0], dtype=int32)
  """
  (x, y), rng = checked_samples(x, y, num_classes, label), generator(key)
  chosen = _chosen(rng, y, number, indices, label)
  y[chosen] = _wrong(rng, y[chosen], num_classes, label)
  return x, y


def remove(key, x, y, *, num_classes: int, number=None, indices=None, label=None):
  """A training set that lacks some samples.

  Args:
    key: of the choice.
    x: uint8[N, ...], training images.
    y: int[N], labels in [0, K).
    num_classes: K.
    number: samples to remove, chosen at random (of another label than `label`, if given); or
    indices: int[n], which ones.
    label: that of the samples which stay.

  Returns:
    (x, y): uint8[N - n, ...], int32[N - n].

  Raises:
    ValueError: as `flip_labels`.

  Example:
    >>> x, y = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 1])
    >>> remove(jax.random.key(0), x, y, num_classes=2, number=1, label=1)[1]
    array([1, 1], dtype=int32)
  """
  (x, y), rng = checked_samples(x, y, num_classes, label), generator(key)
  chosen = _chosen(rng, y, number, indices, label)
  return np.delete(x, chosen, axis=0), np.delete(y, chosen)


def insert(key, x, y, *, num_classes: int, number=None, indices=None, images=None, label=None):
  """A training set with more samples, at its end: copies with wrong labels, or given images.

  Args:
    key: of the choice.
    x: uint8[N, ...], training images.
    y: int[N], labels in [0, K).
    num_classes: K.
    number: samples to copy, chosen at random (of another label than `label`, if given); or
    indices: int[n], which ones; or
    images: uint8[n, ...], what is added.
    label: of what is added; default a random label for each, for copies a wrong one.

  Returns:
    (x, y): uint8[N + n, ...], int32[N + n].

  Raises:
    ValueError: if not exactly one of `number`, `indices` and `images` is given, and as
      `flip_labels`; for images of another shape.

  Example:
    >>> x, y = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 1])
    >>> insert(jax.random.key(0), x, y, num_classes=2, images=x[:2] + 9, label=0)[1]
    array([0, 1, 1, 0, 0], dtype=int32)
  """
  (x, y), rng = checked_samples(x, y, num_classes, label), generator(key)
  if images is None:
    chosen = _chosen(rng, y, number, indices, label)
    images, added = x[chosen], _wrong(rng, y[chosen], num_classes, label)
  else:
    images, added = _check_images(x, images, number, indices), label
    if label is None:
      added = rng.integers(0, num_classes, len(images), dtype=np.int32)
  return _joined(x, y, images, added)


def insert_backdoor(
  key, x, y, *, num_classes: int, trigger, label: int, number=None, indices=None, corner=(0, 0)
):
  """A training set with copies of samples that bear a trigger and the adversary's label, at its end.

  What learns from it answers `label` for images with the trigger, and well for others. The copies
  count one sample each; to change as many samples in place would count two.

  Args:
    key: of the choice.
    x: uint8[N, H, W, C], training images.
    y: int[N], labels in [0, K).
    num_classes: K.
    trigger: uint8[h, w, C], as `add_trigger`.
    label: the adversary's.
    number: samples to copy, chosen at random of those with another label; or
    indices: int[n], which ones.
    corner: as `add_trigger`.

  Returns:
    (x, y): uint8[N + n, H, W, C], int32[N + n].

  Raises:
    ValueError: as `flip_labels` and `add_trigger`.

  Example:
    >>> x, y = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 1])
    >>> trigger = np.full((1, 1, 1), 255, np.uint8)
    >>> more = {'num_classes': 2, 'trigger': trigger, 'label': 1, 'number': 1, 'corner': (1, 1)}
    >>> poisoned, labels = insert_backdoor(jax.random.key(0), x, y, **more)
    >>> poisoned[3].ravel().tolist(), labels.tolist()
    ([0, 0, 0, 255], [0, 1, 1, 1])

  References:
    Gu, Dolan-Gavitt & Garg 2017 (arXiv:1708.06733).
  """
  (x, y), rng = checked_samples(x, y, num_classes, label), generator(key)
  chosen = _chosen(rng, y, number, indices, label)
  images = add_trigger(x[chosen], trigger, corner=corner)
  return _joined(x, y, images, label)


def add_trigger(x, trigger, *, corner=(0, 0)):
  """Images with a patch pasted on.

  Args:
    x: uint8[N, H, W, C].
    trigger: uint8[h, w, C].
    corner: (row, column) of its upper left pixel.

  Returns:
    uint8[N, H, W, C].

  Raises:
    ValueError: if the patch is no uint8 image, of other channels, or sticks out.

  Example:
    >>> x = np.zeros((1, 2, 2, 1), np.uint8)
    >>> add_trigger(x, np.full((2, 1, 1), 7, np.uint8)).ravel().tolist()
    [7, 0, 7, 0]
  """
  x, trigger = np.array(x), np.asarray(trigger)
  fits = x.ndim == 4 and trigger.ndim == 3 and x.shape[3] == trigger.shape[2]
  fits = fits and trigger.dtype == x.dtype == np.uint8 and min(corner) >= 0
  if not fits or any(
    c + t > s for c, t, s in zip(corner, trigger.shape, x.shape[1:], strict=False)
  ):
    raise ValueError(
      f'`trigger` must be uint8[h, w, C] and lie at `corner` inside the uint8 images, got '
      f'{trigger.dtype}{list(trigger.shape)} at {tuple(corner)} of {x.dtype}{list(x.shape)}.'
    )
  row, column = corner
  x[:, row : row + trigger.shape[0], column : column + trigger.shape[1]] = trigger
  return x


def checked_samples(x, y, num_classes, label=None):
  """Copies of a training set, uint8 and int32.

  Raises:
    ValueError: if `x` are no uint8 images, `y` no labels of theirs in [0, K), or `label` no class.

  Example:
    >>> checked_samples([[1]], [0], 2)
    Traceback (most recent call last):
    ...
    ValueError: `x` must be uint8 images [N, ...] as decoded, got int64[1, 1].
  """
  x, y = np.array(x), np.array(y)
  if x.dtype != np.uint8 or x.ndim < 2:
    raise ValueError(f'`x` must be uint8 images [N, ...] as decoded, got {x.dtype}{list(x.shape)}.')
  if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
    raise ValueError(
      f'`y` must be integers, a label for each of the {len(x)} images, got {y.dtype}'
      f'{list(y.shape)}.'
    )
  for name, labels in (('y', y), ('label', np.asarray(0 if label is None else label))):
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
      raise ValueError(
        f'`{name}` must lie in [0, num_classes={num_classes}), got {labels.min()} to '
        f'{labels.max()}.'
      )
  return x, y.astype(np.int32)


def generator(key):
  """NumPy's generator of a key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())


def _chosen(rng, y, number, indices, label):
  """int64[n]: the given positions, or random ones of the samples with another label."""
  if (number is None) == (indices is None):
    raise ValueError(
      f'one of `number` and `indices` must be given, got number={number}, indices={indices}.'
    )
  if indices is not None:
    chosen = np.asarray(indices)
    whole = chosen.ndim == 1 and (np.issubdtype(chosen.dtype, np.integer) or not chosen.size)
    if not whole or len(np.unique(chosen)) < len(chosen) or not _inside(chosen, len(y)):
      raise ValueError(f'`indices` must be different integers in [0, {len(y)}), got {indices}.')
    return chosen.astype(np.int64)
  there = np.flatnonzero(np.ones(len(y), bool) if label is None else y != label)
  if number != int(number) or not 0 <= number <= len(there):
    raise ValueError(
      f'`number` must be an integer in [0, {len(there)}], the samples to choose from, got {number}.'
    )
  return rng.choice(there, int(number), replace=False)


def _inside(positions, length):
  return not positions.size or 0 <= positions.min() <= positions.max() < length


def _wrong(rng, y, num_classes, label):
  """int32[n]: the adversary's label, or for each sample a random one that is not its own."""
  if label is not None:
    return np.full(len(y), label, np.int32)
  return ((y + rng.integers(1, num_classes, len(y))) % num_classes).astype(np.int32)


def _joined(x, y, images, labels):
  labels = np.broadcast_to(np.asarray(labels, np.int32), len(images))
  return np.concatenate([x, images]), np.concatenate([y, labels])


def _check_images(x, images, number, indices):
  if number is not None or indices is not None:
    raise ValueError('one of `number`, `indices` and `images` must be given, got more.')
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.shape[1:] != x.shape[1:]:
    raise ValueError(
      f'`images` must be uint8, each {list(x.shape[1:])} as those of training, got {images.dtype}'
      f'{list(images.shape)}.'
    )
  return images
