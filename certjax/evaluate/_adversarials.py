"""Adversarial images on the disk, and what makes one of them count: looked at as it lies there.

A file holds one batch: `index` int64[B], places in the data set, and `x_adv` float32[B, H, W, C]; of functional
threats also `latent` float32[B, D] (`evaluate/_stored_sets.py`). Distances in a norm are measured on the host in
float64. What float32 rounded while the point was made is forgiven:

  distance <= eps (1 + 1e-5) + 2^-24 n^(1/p)   for n values in L_p, p = 1, 2, inf; nothing where eps = 0

because x + delta rounds each value by at most 2^-25, and the length of delta was summed in float32.
Whole pixels (L0, patches) are counted, and nothing is forgiven.
"""

import io
import os
import pathlib

import numpy as np

_RELATIVE, _ROUNDING = 1e-5, 2.0**-24
_POWERS = {'linf': 0.0, 'l2': 0.5, 'l1': 1.0}  # n^(1/p)


def host_distance(norm, x, x_adv) -> float:
  """The distance of two images in float64.

  Args:
    norm: 'linf', 'l2', 'l1', 'l0' (pixels) or 'patch' (side of the smallest square).
    x, x_adv: float[H, W, C].

  Example:
    >>> a, b = np.zeros((2, 2, 1)), np.array([[[0.0], [0.5]], [[0.0], [0.25]]])
    >>> [host_distance(norm, a, b) for norm in ('linf', 'l1', 'l0', 'patch')]
    [0.5, 0.75, 2.0, 2.0]
  """
  delta = np.asarray(x_adv, np.float64) - np.asarray(x, np.float64)
  if norm in _POWERS:
    order = {'linf': np.inf, 'l2': 2, 'l1': 1}[norm]
    return float(np.linalg.norm(delta.ravel(), order))
  changed = (delta != 0).any(axis=-1)
  if norm == 'l0':
    return float(changed.sum())
  return float(max(_extent(changed.any(axis=1)), _extent(changed.any(axis=0))))


def allowance(norm, eps, size) -> float:
  """The largest `host_distance` of an image of `size` values that counts as within eps.

  Example:
    >>> allowance('linf', 0.0, 64), allowance('l0', 3, 64), allowance('linf', 0.25, 64) < 0.250003
    (0.0, 3.0, True)
  """
  if norm not in _POWERS or eps == 0:
    return float(eps)
  return eps * (1 + _RELATIVE) + _ROUNDING * size ** _POWERS[norm]


def check_adversarials(norm, eps, x, x_adv, where):
  """The distances float64[B] of adversarial images, unless one is none.

  Args:
    norm, eps: of the threat.
    x, x_adv: the images and what was made of them, float32[B, H, W, C].
    where: what to call them in errors.

  Returns:
    float64[B], in the unit of the norm.

  Raises:
    ValueError: for another shape or type, a value outside [0, 1] or NaN, a distance above `allowance`.

  Example:
    >>> x = np.full((1, 2, 2, 1), 0.5, np.float32)
    >>> check_adversarials('l0', 1, x, x + np.float32([[[[0.25], [0]], [[0], [0]]]]), 'batch 0')
    array([1.])
    >>> check_adversarials('l0', 1, x, x + np.float32(0.25), 'batch 0')
    Traceback (most recent call last):
    ...
    ValueError: batch 0: row 0 is at l0 distance 4 of its image, beyond eps=1.
  """
  x_adv = check_images(x, x_adv, where)
  distances = np.array([host_distance(norm, *pair) for pair in zip(x, x_adv, strict=True)])
  far = distances > allowance(norm, float(eps), x[0].size)
  if far.any():
    row = int(np.argmax(far))
    raise ValueError(
      f'{where}: row {row} is at {norm} distance {distances[row]:.9g} of its image, beyond eps={eps:g}.'
    )
  return distances


def check_images(x, x_adv, where):
  """The adversarial images as an array, unless they can be none.

  Args:
    x, x_adv, where: as in `check_adversarials`.

  Raises:
    ValueError: for another shape or type, a value outside [0, 1] or NaN.

  Example:
    >>> x = np.zeros((1, 1, 1, 1), np.float32)
    >>> check_images(x, x + np.float32(2), 'here')
    Traceback (most recent call last):
    ...
    ValueError: here: row 0 has values outside [0, 1], or NaN.
  """
  x_adv = np.asarray(x_adv)
  if x_adv.dtype != np.float32 or x_adv.shape != x.shape:
    raise ValueError(
      f'{where}: adversarial images must be float32 of shape {x.shape}, got {x_adv.dtype} of shape '
      f'{x_adv.shape}.'
    )
  inside = ((x_adv >= 0) & (x_adv <= 1)).reshape(len(x), -1).all(axis=1)  # NaN is not inside.
  if not inside.all():
    raise ValueError(f'{where}: row {int(np.argmin(inside))} has values outside [0, 1], or NaN.')
  return x_adv


def write_adversarials(path, index, x_adv, latent=None):
  """Writes a batch whole or not at all; equal arrays give equal bytes.

  Args:
    path: of the .npz file; its directory is made where missing.
    index: int[B].
    x_adv: float32[B, H, W, C].
    latent: float32[B, D] of a functional threat, or None.

  Raises:
    OSError: if it cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = pathlib.Path(folder) / 'batch.npz'
    ...   write_adversarials(path, [7], np.full((1, 2, 2, 1), 0.5, np.float32))
    ...   read_adversarials(path, [7]).shape
    (1, 2, 2, 1)
  """
  path = pathlib.Path(path)
  content = io.BytesIO()
  arrays = {'x_adv': x_adv} if latent is None else {'x_adv': x_adv, 'latent': latent}
  arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
  np.savez(content, index=np.asarray(index, np.int64), **arrays)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    with open(part, 'wb') as file:
      file.write(content.getvalue())
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def read_adversarials(path, index):
  """The images float32[B, H, W, C] of a batch that `write_adversarials` wrote.

  Args:
    path: of the .npz file.
    index: int[B], which images they should be of.

  Returns:
    float32[B, H, W, C].

  Raises:
    ValueError: for a missing or damaged file, or one of other images.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = pathlib.Path(folder) / 'batch.npz'
    ...   write_adversarials(path, [7], np.full((1, 1, 1, 1), 0.5, np.float32))
    ...   read_adversarials(path, [7]).tolist()
    [[[[0.5]]]]
  """
  return read_stored(path, index)['x_adv']


def read_stored(path, index) -> dict:
  """All arrays of a batch that `write_adversarials` wrote, but for the index.

  Args:
    path, index: as in `read_adversarials`.

  Raises:
    ValueError: as `read_adversarials`.
  """
  remedy = 'remove its directory, and the same command attacks anew.'
  try:
    content = io.BytesIO(pathlib.Path(path).read_bytes())
  except FileNotFoundError as error:
    raise ValueError(
      f'{path}: the adversarial images of its records are missing; {remedy}'
    ) from error
  try:
    with np.load(content, allow_pickle=False) as file:
      arrays = {
        name: file[name] for name in ('index', 'x_adv', *{'latent'}.intersection(file.files))
      }
      there = arrays.pop('index')
  except Exception as error:  # A damaged archive may raise anything.
    raise ValueError(f'{path}: damaged ({type(error).__name__}: {error}); {remedy}') from error
  if there.tolist() != np.asarray(index).tolist():
    raise ValueError(f'{path}: holds other images than its records; {remedy}')
  return arrays


def _extent(changed):
  """Length of the shortest stretch that holds all True of bool[n]."""
  places = np.flatnonzero(changed)
  return int(places[-1] - places[0] + 1) if places.size else 0
