"""A directory of class folders as a data set, for photographs that TFDS has not prepared.

`DIR/train/CLASS/*.jpeg` and `DIR/validation/CLASS/*.jpeg` (or `val`, or `test`); class folders
that lie in DIR itself are the test split. A label is the position of the class among the sorted
names of all splits, an index the position of the file in sorted order: noise and records are tied
to it, so it must not depend on the order in which a file system lists its files.
"""

import os
from pathlib import Path

import numpy as np

from certjax.data._records import decode_image
from certjax.data._store import one_line
from certjax.data._table import Dataset

_SPLITS = {'train': ('train',), 'test': ('validation', 'val', 'test')}
_SUFFIXES = ('.jpeg', '.jpg', '.png')


class FolderRecords:
  """One split of a directory of class folders: what `Records` is of a prepared data set.

  Attributes:
    folder: the directory.
  """

  def __init__(self, data_dir, split: str):
    self.folder, names = _directory(data_dir), class_names(data_dir)
    there = _split_folders(self.folder)
    if split not in there:
      raise ValueError(
        f'{self.folder} has no {split} split: put class folders into '
        f'{self.folder / _SPLITS[split][0]}.'
      )
    self._examples = [  # Strings: ImageNet has 1.3 million of them.
      (f'{there[split] / name}/{file}', label)
      for label, name in enumerate(names)
      for file in _entries(there[split] / name)
      if file.lower().endswith(_SUFFIXES)
    ]
    if not self._examples:
      raise ValueError(f'{there[split]} holds no image: {", ".join(_SUFFIXES)} in class folders.')

  def __len__(self) -> int:
    return len(self._examples)

  def read(self, rows) -> list[tuple[str, int]]:
    """File and label of each row; the file is opened by `decode`."""
    return [self._examples[int(row)] for row in rows]

  def decode(self, path: str, spec: Dataset, word=None) -> np.ndarray:
    """uint8[H, W, C], or a ValueError that names the file; see `decode_image`."""
    try:
      return decode_image(Path(path).read_bytes(), spec, word)
    except Exception as error:  # Of the file system and of Pillow: no common base.
      raise ValueError(f'cannot read {path}: {one_line(error)}. Repair or delete it.') from error


def class_names(data_dir) -> list[str]:
  """Names of the class folders in all splits, sorted: label i is the i-th.

  Raises:
    ValueError: if `data_dir` is no directory, or has no class folder.
  """
  folder = _directory(data_dir)
  splits = _split_folders(folder).values()
  names = {name for split in splits for name in _entries(split) if (split / name).is_dir()}
  if not names:
    raise ValueError(f'{folder} has no class folders: DIR/train/CLASS/*.jpeg, DIR/validation/...')
  return sorted(names)


def _directory(data_dir) -> Path:
  if data_dir is None or not Path(data_dir).expanduser().is_dir():
    raise ValueError(
      f'`data_dir` must name a directory of class folders, got {data_dir}: `--data-dir DIR`.'
    )
  return Path(data_dir).expanduser()


def _split_folders(folder) -> dict[str, Path]:
  found = {}
  for split, names in _SPLITS.items():
    for name in names:
      if (folder / name).is_dir():
        found.setdefault(split, folder / name)
  return found or {'test': folder}


def _entries(folder) -> list[str]:
  """Names in a folder, sorted, without hidden ones; none where there is no such folder."""
  return sorted(n for n in os.listdir(folder) if n[0] != '.') if folder.is_dir() else []
