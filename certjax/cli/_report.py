"""`certjax report`: works where JAX is not installed."""

from certjax import configs, records
from certjax import report as reports
from certjax.cli import _parse


def report(arguments):
  """`certjax report RUN... [options]`."""
  config = _parse.parse(configs.Report, 'report', arguments)
  if not config.runs:
    raise ValueError('report on which runs? Give run directories, records.jsonl or TSV files.')
  if config.compare and len(config.runs) != 2:
    raise ValueError(f'`--compare` takes exactly two runs, got {len(config.runs)}.')
  for run in config.runs:
    _check_certified(run)
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


def _check_certified(path):
  if path.is_dir() and not (path / records.RECORDS).exists():
    raise ValueError(f'{path} holds no {records.RECORDS} yet: run `certjax certify` there first.')


def _home(path):
  """A directory run gets its report itself; that of a file goes beside it."""
  return path if path.is_dir() else path.parent / f'{path.stem}-report'
