"""The images that a finished attack broke, as they lie on the disk."""

from typing import Any, NamedTuple

import numpy as np

from certjax import records
from certjax.evaluate._adversarials import read_adversarials


class Broken(NamedTuple):
  """Images that an attack broke, by their index.

  Attributes:
    index: int64[M], in the split.
    labels, predict: int64[M], the label, and the classifier's answer to the adversarial image.
    x_adv: float32[M, H, W, C]; None of no image.
  """

  index: Any
  labels: Any
  predict: Any
  x_adv: Any


def broken(directory, largest=None) -> Broken:
  """What an attack, or one of its parts, broke.

  Args:
    directory: of the attack, below that of `attacked`.
    largest: at most so many images, evenly spaced.

  Returns:
    A `Broken`.

  Raises:
    ValueError: for missing or damaged arrays.

  Example:
    >>> import pathlib, tempfile
    >>> from certjax.evaluate import write_adversarials
    >>> record = {'index': 7, 'label': 3, 'predict': 1, 'radius': 0.0, 'success': True}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   folder = pathlib.Path(folder)
    ...   with records.writer(folder, {}) as out:
    ...     out.append(record)
    ...   write_adversarials(folder / 'adversarial' / '0.npz', [7], np.zeros((1, 8, 8, 1)))
    ...   broken(folder).index, broken(folder).x_adv.shape
    (array([7]), (1, 8, 8, 1))
  """
  parts = [path.parent for path in sorted(directory.glob(f'*/{records.RECORDS}'))] or [directory]
  found = [pair for part in parts for pair in _successes(part)]
  found.sort(key=lambda pair: pair[0]['index'])
  if largest is not None and len(found) > largest:
    found = [found[i * len(found) // largest] for i in range(largest)]
  column = lambda name: np.array([line[name] for line, _ in found], np.int64)
  x_adv = np.stack([image for _, image in found]) if found else None
  return Broken(column('index'), column('label'), column('predict'), x_adv)


def _successes(directory):
  """(record, image) of each success of one part."""
  lines = records.read(directory)[1]
  paths = sorted((directory / 'adversarial').glob('*.npz'))
  starts = [int(path.stem) for path in paths]
  if lines and (not starts or starts[0] != 0):
    raise ValueError(f'{directory}: its adversarial images are missing: attack anew.')
  for path, start, end in zip(paths, starts, [*starts[1:], len(lines)], strict=True):
    here = lines[start:end]
    for line, image in zip(
      here, read_adversarials(path, [line['index'] for line in here]), strict=True
    ):
      if line['success']:
        yield line, image
