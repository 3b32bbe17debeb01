"""`certjax certify` and `certjax predict`."""

import dataclasses
import pathlib

from certjax import configs
from certjax.cli import _parse, _records


def certify(arguments):
  """`certjax certify RUN [options]`."""
  out = run(_parse.parse(configs.Certify, 'certify', arguments))
  print(f'records, table.md, table.csv and curve.png are in {out}')


def run(config):
  """Certifies what a `configs.Certify` says and prints its report; returns the directory."""
  config = dataclasses.replace(config, out=config.out or config.run)
  _records.write('certify', config)
  from certjax import report

  print()
  print(report.write([report.load(config.out)], config.out))
  return config.out


def predict(arguments):
  """`certjax predict RUN [options]`."""
  config = _parse.parse(configs.Predict, 'predict', arguments)
  config = dataclasses.replace(config, out=config.out or pathlib.Path(config.run) / 'predict')
  _records.write('predict', config)
  from certjax import records

  _, lines = records.read(config.out)
  abstained = sum(line['predict'] < 0 for line in lines)
  correct = sum(line['predict'] == line['label'] for line in lines)
  wrong = len(lines) - abstained - correct
  print(f'{len(lines)} images: {correct} correct, {wrong} wrong, {abstained} abstained')
  print(
    f"each prediction is not the smoothed classifier's with probability at most {config.alpha:g}"
  )
  print(f'records are in {config.out}')
