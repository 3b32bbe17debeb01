"""`certjax data`: what is prepared, and preparing it."""

import dataclasses
import pathlib
from typing import Literal

import tyro

from certjax import data as data_sets
from certjax.cli import _parse


@dataclasses.dataclass(frozen=True)
class Data:
  """Lists the data sets, or prepares one: `certjax data`, `certjax data prepare mnist`."""

  action: tyro.conf.Positional[Literal['list', 'prepare']] = 'list'
  """What to do."""
  name: tyro.conf.Positional[str | None] = None
  """Data set to prepare."""
  data_dir: pathlib.Path | None = None
  """TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""


def data(arguments):
  """`certjax data [list | prepare NAME]`."""
  config = _parse.parse(Data, 'data', arguments)
  if config.action == 'prepare':
    if config.name is None:
      raise ValueError(f'prepare which data set? One of {", ".join(data_sets.DATASETS)}.')
    print(f'{config.name} is prepared in {data_sets.prepare(config.name, config.data_dir)}')
    return
  for row in data_sets.status(config.data_dir):
    state = 'prepared' if row.prepared else f'missing: {row.remedy}'
    print(f'{row.name:<14} {state:<60} {row.path}')
