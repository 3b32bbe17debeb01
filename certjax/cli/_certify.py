"""`certjax certify` and `certjax predict`."""

import dataclasses
import pathlib

from certjax import configs, records
from certjax.cli import _parse, _progress, _records


def certify(arguments):
  """`certjax certify RUN [options]`."""
  card = _parse.contract(arguments, option='--method')
  config = _parse.parse(configs.Certify, 'certify', arguments, positional='run', after_help=card)
  print(f'everything is in {run(config)}')


def run(config):
  """Certifies what a `configs.Certify` says and prints its report; returns the directory.

  Of one shard among several there is a report only once all of them are complete.
  """
  config = dataclasses.replace(config, out=config.out or config.run)
  whole = _records.write('certify', config)
  out = records.locate(config.out) if config.out else None
  if not isinstance(out, pathlib.Path) or not (whole or _is_complete(out)):
    print(f'`certjax report {config.out}` merges the shards and says which are missing.')
    return config.out
  from certjax import report

  print()
  print(report.write([report.load(out)], out))
  return out


def predict(arguments):
  """`certjax predict RUN [options]`."""
  config = _parse.parse(configs.Predict, 'predict', arguments, positional='run')
  if config.out is None and config.run is not None:
    config = dataclasses.replace(config, out=pathlib.Path(config.run) / 'predict')
  run_predict(config)


def run_predict(config):
  """Classifies what a `configs.Predict` with `out` says, and prints how many are correct."""
  _records.write('predict', config)
  for problem in records.problems(config.out):
    _progress.warn(problem)
  _, lines = records.read(config.out)
  correct, wrong, abstained = outcomes(lines)
  print(f'{len(lines)} images: {correct} correct, {wrong} wrong, {abstained} abstained')
  print(
    f"each prediction is not the smoothed classifier's with probability at most {config.alpha:g}"
  )
  print(f'records are in {config.out}')


def outcomes(lines):
  """(correct, wrong, abstained) of records."""
  abstained = sum(line['predict'] < 0 for line in lines)
  correct = sum(line['predict'] == line['label'] for line in lines)
  return correct, len(lines) - abstained - correct, abstained


def _is_complete(out):
  """Whether every shard is there and whole; then they are merged."""
  if records.problems(out):
    return False
  records.write_merged(out)
  return True
