"""`certjax sweep`: trains and certifies for each value of one parameter of the noise, side by side."""

import dataclasses
import pathlib

from certjax import configs, records
from certjax.cli import _certify, _parse, _records, _train


def sweep(arguments):
  """`certjax sweep PRESET --parameter NAME --values V... [options]`."""
  presets = {
    name: (text, configs.Sweep(training=preset, values=()))
    for name, (text, preset) in configs.PRESETS.items()
    if preset.method != 'none'
  }
  config = _parse.parse_preset(presets, 'sweep', arguments, description=configs.Sweep.__doc__)
  out = config.out or pathlib.Path(f'{config.training.out}-sweep')
  plans = _plans(config, out)
  for training, certification, prediction in plans:
    print(f'== {training.out}')
    _train.run(training)
    _certify.run(certification)
    if prediction:
      _certify.run_predict(prediction)
  print(f'\n{_report(config, plans, out)}\neverything is in {out}')


def _plans(config, out):
  """(training, certification, prediction or None) of every value, all checked before the first begins."""
  from certjax import data

  values = config.values
  if not values or len(set(values)) != len(values):
    raise ValueError(f'`values` are the different values of the parameter, got {values}.')
  if config.predict < 0:
    raise ValueError(f'`predict` must be a number of samples, or 0, got {config.predict}.')
  for name in ('run', 'model', 'out', 'method', 'sigma', 'parameters', 'shard'):
    if getattr(config.certification, name) is not None:
      raise ValueError(f'`certification.{name}` follows from the training: leave it out.')
  shape = data.dataset(config.training.dataset).shape
  return [_plan(config, value, out / f'{config.parameter}-{value:g}', shape) for value in values]


def _plan(config, value, out, shape):
  training = dataclasses.replace(config.training, out=out)
  if config.parameter == 'sigma':
    training = dataclasses.replace(training, sigma=value)
  else:
    parameters = {**training.parameters, config.parameter: value}
    training = dataclasses.replace(training, parameters=parameters)
  certification = dataclasses.replace(config.certification, run=out)
  noise = {name: getattr(training, name) for name in ('method', 'sigma', 'parameters')}
  _records.check('certify', dataclasses.replace(certification, **noise), shape)
  if not config.predict:
    return training, certification, None
  shared = {
    field.name: getattr(certification, field.name)
    for field in dataclasses.fields(configs.Evaluation)
  }
  prediction = configs.Predict(
    **{**shared, 'out': out / 'predict'}, num_samples=config.predict, alpha=certification.alpha
  )
  _records.check('predict', dataclasses.replace(prediction, **noise), shape)
  return training, certification, prediction


def _report(config, plans, out):
  """The table of all values, written to OUT; with that of the predictions, in `predictions.md`."""
  from certjax import report

  text = report.write([report.load(training.out) for training, _, _ in plans], out)
  if not config.predict:
    return text
  lines = [
    f'| {config.parameter} | images | accuracy | abstained |',
    '| --- | ---: | ---: | ---: |',
  ]
  for value, (_, _, prediction) in zip(config.values, plans, strict=True):
    _, found = records.read(prediction.out)
    correct, _, abstained = _certify.outcomes(found)
    shares = f'{correct / len(found):.4f} | {abstained / len(found):.4f}'
    lines.append(f'| {value:g} | {len(found)} | {shares} |')
  predictions = '\n'.join(lines) + '\n'
  (out / 'predictions.md').write_text(predictions)
  return f'{text}\n{predictions}'
