"""`certjax report`: works where JAX is not installed."""

import pathlib

import tyro

from certjax import configs
from certjax import report as reports


def report(arguments):
  """`certjax report RUN... [options]`."""
  config = tyro.cli(
    tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(configs.Report),
    prog='certjax report',
    args=arguments,
  )
  if config.compare and len(config.runs) != 2:
    raise ValueError(f'`--compare` takes exactly two runs, got {len(config.runs)}.')
  runs = reports.load_all(config.runs)
  out = config.out or _home(config.runs[0])
  compare = runs if config.compare else None
  print(
    reports.write(
      runs, out, config.radii, compare=compare, high_probability=config.high_probability
    )
  )
  if config.tsv:
    reports.write_tsv(config.tsv, runs[0])
  print(f'written to {out}')


def _home(path):
  """A directory run gets its report itself; that of a file goes beside it."""
  path = pathlib.Path(path)
  return path if path.is_dir() else path.parent / f'{path.stem}-report'
