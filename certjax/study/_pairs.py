"""Which pairs of images a participant sees: those of attacks, identical ones, and sentinels.

A batch mixes pairs of an original and its adversarial image with identical pairs, so that "different" is not
always right, and with sentinels that an attentive person gets right: identical pairs, and images of another class
under strong noise. What a pair is stands in the key alone. Its name is its place in a shuffled batch, and says
nothing.
"""

import math
from typing import NamedTuple

import numpy as np

_FEWEST_SENTINELS = 2  # One of each kind: who always gives one answer must fail at one of them.


class Condition(NamedTuple):
  """Images that one attack made at one bound, as they are shown.

  Attributes:
    attack: its name.
    bound: its size.
    unit: of the bound.
    index: int64[M], in the data set.
    labels: int64[M].
    originals: uint8[M, H, W, C].
    adversarials: uint8[M, H, W, C].
    distances: dict from a name to float64[M].
  """

  attack: str
  bound: float
  unit: str
  index: np.ndarray
  labels: np.ndarray
  originals: np.ndarray
  adversarials: np.ndarray
  distances: dict


class Pair(NamedTuple):
  """Two images to be shown, and the truth about them.

  Attributes:
    first: uint8[H, W, C].
    second: uint8[H, W, C].
    truth: dict of JSON values: truth_same, is_sentinel, and of an adversarial pair attack, bound, unit, index,
      first ('original' or 'adversarial'), unchanged (equal once rounded to 8 bits), distances.
  """

  first: np.ndarray
  second: np.ndarray
  truth: dict


def compose(
  conditions, *, batch_size=25, num_identical=5, num_sentinels=4, noise=0.25, seed=0
) -> list:
  """Deals the pairs of all conditions into batches, each with identical pairs and sentinels.

  Args:
    conditions: a list of `Condition`, of images of one shape.
    batch_size: pairs a batch. Where adversarial pairs run out, identical ones fill it.
    num_identical: identical pairs a batch, at least, beside the sentinels.
    num_sentinels: sentinels a batch; half of them identical, the others obviously different.
    noise: standard deviation of the noise of obviously different images, in pixel values of [0, 1].
    seed: of the order, and of what is drawn.

  Returns:
    A list of batches, each a list of `batch_size` `Pair`. Each adversarial pair comes once.

  Raises:
    ValueError: where there is no pair, images differ in shape or are not uint8, or a count leaves no room.

  Example:
    >>> x = np.zeros((3, 2, 2, 1), np.uint8)
    >>> pgd = Condition('pgd', 0.1, 'pixel value', np.arange(3), np.arange(3), x, x + np.uint8(9), {})
    >>> batches = compose([pgd], batch_size=6, num_identical=2, num_sentinels=2)
    >>> [len(batch) for batch in batches]
    [6, 6]
    >>> sum('attack' in pair.truth for batch in batches for pair in batch)
    3
  """
  room = batch_size - num_identical - num_sentinels
  _check(conditions, room, batch_size, num_identical, num_sentinels, noise)
  rng = np.random.default_rng(seed)
  places = [(c, row) for c in conditions for row in range(len(c.index))]
  order = rng.permutation(len(places))
  batches = []
  for part in np.array_split(order, math.ceil(len(places) / room)):
    batch = [_adversarial(rng, *places[i]) for i in part]
    batch += [_identical(rng, places, False) for _ in range(batch_size - num_sentinels - len(part))]
    batch += [_identical(rng, places, True) for _ in range(num_sentinels // 2)]
    batch += [_obvious(rng, places, noise) for _ in range(num_sentinels - num_sentinels // 2)]
    batches.append([batch[i] for i in rng.permutation(batch_size)])
  return batches


def pair_name(batch, place) -> str:
  """The name of the pair at `place` of `batch`, both counted from 0.

  Example:
    >>> pair_name(0, 11)
    '001-12'
  """
  return f'{batch + 1:03}-{place + 1:02}'


def _adversarial(rng, condition, row):
  images = condition.originals[row], condition.adversarials[row]
  swapped = bool(rng.integers(2))
  truth = {
    'truth_same': False, 'is_sentinel': False, 'attack': condition.attack,
    'bound': float(condition.bound), 'unit': condition.unit, 'index': int(condition.index[row]),
    'first': 'adversarial' if swapped else 'original',
    'unchanged': bool((images[0] == images[1]).all()),
    'distances': {name: float(values[row]) for name, values in condition.distances.items()},
  }  # fmt: skip
  first, second = images[::-1] if swapped else images
  return Pair(first, second, truth)


def _identical(rng, places, is_sentinel):
  condition, row = places[rng.integers(len(places))]
  image = condition.originals[row]
  return Pair(image, image, {'truth_same': True, 'is_sentinel': is_sentinel})


def _obvious(rng, places, noise):
  """An image, and one of another class under noise; without a second class, another image."""
  condition, row = places[rng.integers(len(places))]
  others = [(c, r) for c, r in places if c.labels[r] != condition.labels[row]] or places
  other, place = others[rng.integers(len(others))]
  image = other.originals[place]
  noisy = np.rint(image + rng.normal(0, 255 * noise, image.shape)).clip(0, 255).astype(np.uint8)
  return Pair(condition.originals[row], noisy, {'truth_same': False, 'is_sentinel': True})


def _check(conditions, room, batch_size, num_identical, num_sentinels, noise):
  if num_sentinels < _FEWEST_SENTINELS or num_identical < 0 or room < 1:
    raise ValueError(
      f'`batch_size`={batch_size} must hold an adversarial pair beside `num_identical`={num_identical} (0 or '
      f'more) and `num_sentinels`={num_sentinels} ({_FEWEST_SENTINELS} or more): change one of them.'
    )
  if not 0 < noise < math.inf:
    raise ValueError(f'`noise` must be a positive standard deviation, got {noise}: 0.25 is strong.')
  if not sum(len(condition.index) for condition in conditions):
    raise ValueError('`conditions` hold no pair: attack more images, or at a larger bound.')
  shapes = {c.originals.shape[1:] for c in conditions} | {
    c.adversarials.shape[1:] for c in conditions
  }
  if len(shapes) > 1:
    raise ValueError(f'`conditions` must hold images of one shape, got {sorted(shapes)}.')
  (shape,) = shapes
  if len(shape) != 3 or shape[-1] not in (1, 3):
    raise ValueError(f'`conditions` must hold images [H, W, 1 or 3], got {shape}.')
  for condition in conditions:
    for images in (condition.originals, condition.adversarials):
      if images.dtype != np.uint8 or len(images) != len(condition.index):
        raise ValueError(
          f'`conditions`: images of {condition.attack} must be uint8, one for each index, got {images.dtype} of '
          f'shape {images.shape}: round them as they will be shown.'
        )
