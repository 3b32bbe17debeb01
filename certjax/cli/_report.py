"""`certjax report`: works where JAX is not installed."""

import pathlib

from certjax import configs, records
from certjax import report as reports
from certjax.cli import _parse, _progress


def report(arguments):
  """`certjax report RUN... [options]`."""
  config = _parse.parse(configs.Report, 'report', arguments)
  if not config.runs:
    raise ValueError('report on which runs? Give run directories, records.jsonl or TSV files.')
  if config.threats or config.trained:
    return _threats(config)
  if config.compare and len(config.runs) != 2:
    raise ValueError(f'`--compare` takes exactly two runs, got {len(config.runs)}.')
  paths = [records.locate(path) for path in config.runs]
  for path in paths:
    _check_certified(path)
  out = config.out or _home(paths[0])
  runs = reports.load_all(paths)
  for path, run in zip(paths, runs, strict=True):
    _merge_or_warn(path, run)
  compare = runs if config.compare else None
  print(
    reports.write(
      runs, out, config.radii, compare=compare, high_probability=config.high_probability
    )
  )
  if config.tsv:
    reports.write_tsv(config.tsv, runs[0])
  print(f'written to {out}')


def _threats(config):
  """`certjax report --threats DIRECTORY...`: a table goes beside the first directory."""
  if not config.threats:
    raise ValueError('`trained` says what `--threats` were seen in training: give both.')
  if config.compare or config.radii or config.high_probability or config.tsv:
    raise ValueError('`threats` reads attacks: it has no radii, and no --compare or --tsv.')
  out = config.out or config.runs[0].resolve().parent
  print(reports.write_threats(config.runs, out, config.trained))
  print(f'written to {out}')


def _check_certified(path):
  if not _is_file(path) and not records.exists(path):
    raise ValueError(f'{path} holds no {records.RECORDS} yet: run `certjax certify` there first.')


def _merge_or_warn(path, run):
  """Names what a run lacks; one that lacks nothing gets its shards merged into `records.jsonl`."""
  for problem in run.problems:
    _progress.warn(problem)
  if not run.problems and not _is_file(path):
    try:
      records.write_merged(path)
    except OSError as error:  # The report may go elsewhere, and needs no merged file.
      _progress.warn(f'{path}: not merged: {error.strerror}')


def _home(path):
  """A directory run gets its report itself; that of a file goes beside it."""
  if not isinstance(path, pathlib.Path):
    raise ValueError(f'`--out`: tables and plots of {path} need a local directory, name one.')
  return path.parent / f'{path.stem}-report' if _is_file(path) else path


def _is_file(path):
  """A missing path counts as a file: opening it says so."""
  return not path.is_dir() if isinstance(path, pathlib.Path) else path.name.endswith('.jsonl')
