"""The records of a certification or prediction run: begun, or continued where they stop."""

import dataclasses
import socket

from certjax import configs
from certjax.cli import _parse, _progress

_NOT_IN_RECORDS = ('run', 'out', 'data_dir')  # Places may move; what is there is hashed.
_PROBES = 4  # Images that the sanity checks look at.
_TITLES = {'certify': 'certifying', 'predict': 'predicting'}


def write(kind, config):
  """Writes the records that are missing in `config.out`.

  Args:
    kind: 'certify' or 'predict'.
    config: a `configs.Certify` or `configs.Predict` with `out`.

  Raises:
    ValueError: on bad arguments, before anything is written.
    OSError: if a record cannot be written.
  """
  from certjax import data, evaluate, records, train

  training = train.read_config(config.run)
  config = _like_training(config, training)
  smoothing, arguments = check(kind, config, data.dataset(training['dataset']).shape)
  images = _images(config, training)
  trained = train.load_run(config.run)
  header = evaluate.header(
    kind, _settings(config, training, arguments), smoothing,
    configs.METHODS[config.method].quantifier, trained.variables, images,
  )  # fmt: skip
  finished = len(records.start(config.out, header))
  total = len(images.index)
  rest = data.Images(*(array[finished:] for array in images))
  if finished < total:
    _warn(config, trained, smoothing, images)
  with _progress.bar(_TITLES[kind], 'images') as bar:
    bar.start(finished, total)
    if finished < total:
      _append(kind, config, trained.model_fn, smoothing, rest, arguments, bar)


def check(kind, config, shape):
  """The `Smoothing` or `Views`, and the other arguments of the loop over images.

  Raises:
    ValueError: if they can never give a record.
  """
  from certjax import evaluate

  _parse.check_seed(config.seed)
  smoothing = configs.smoothing_of(
    config.method, config.sigma, config.parameters, shape=shape, norm=getattr(config, 'norm', None)
  )
  arguments = {'chunk': config.chunk}
  if kind == 'predict' or not evaluate.is_exact(smoothing):
    arguments |= {'num_samples': config.num_samples, 'alpha': config.alpha}
    if kind == 'certify':
      arguments |= {'num_selection': config.num_selection, 'runner_up': config.runner_up}
  evaluate.check_arguments(kind, smoothing, **arguments)
  return smoothing, arguments


def _append(kind, config, model_fn, smoothing, images, arguments, bar):
  """Appends one record an image as its votes come in."""
  import jax

  from certjax import evaluate, records

  make = evaluate.predicted_records if kind == 'predict' else evaluate.certified_records
  if kind == 'certify' and evaluate.is_exact(smoothing):
    make = evaluate.enumerated_records
  host, device = socket.gethostname(), str(jax.local_devices()[0].device_kind)
  key = jax.random.key(config.seed)
  for record, seconds in make(key, model_fn, smoothing, images, **arguments):
    timing = {'seconds': round(seconds, 6), 'host': host, 'device': device}
    records.append(config.out, record, timing)
    bar.advance()


def _like_training(config, training):
  """The config with method, noise and parameters of the training where it names none."""
  if config.method is None and training['method'] == 'none':
    if config.sigma is None:
      raise ValueError(
        f'{config.run} was trained without noise: say which noise to certify under, `--sigma 0.25`.'
      )
    return dataclasses.replace(config, method='gaussian', parameters=config.parameters or {})
  same = config.method in (None, training['method'])
  parameters = training.get('parameters', {}) if same else {}
  return dataclasses.replace(
    config,
    method=config.method or training['method'],
    sigma=training['sigma'] if config.sigma is None else config.sigma,
    parameters=parameters if config.parameters is None else config.parameters,
  )


def _settings(config, training, arguments):
  """The part of the config that the records depend on: of an exact method no samples."""
  sampling = {'num_samples', 'num_selection', 'alpha', 'runner_up', 'seed'}
  dropped = {
    *_NOT_IN_RECORDS,
    *(sampling - {*arguments, *(['seed'] if 'alpha' in arguments else [])}),
  }
  settings = dataclasses.asdict(config)
  settings = {key: value for key, value in settings.items() if key not in dropped}
  return settings | {'dataset': training['dataset']}


def _images(config, training):
  from certjax import data

  name, split = training['dataset'], config.split
  data_dir = config.data_dir or training['data_dir']
  indices = data.subset(
    len(data.source(name, split, data_dir)),
    skip=config.skip, max_images=config.max_images, evenly=config.evenly,
  )  # fmt: skip
  images = data.load(name, split, data_dir=data_dir, indices=indices)
  data.check_images(images.images, name=f'{name} {split}', shape=data.dataset(name).shape)
  data.check_labels(images.labels, data.dataset(name).num_classes, name=f'{name} {split} labels')
  return images


def _warn(config, trained, smoothing, images):
  """Says what the library finds odd about the model and the setting."""
  from certjax import data, evaluate

  noisy = trained.config['method'] != 'none'
  for warning in evaluate.sanity_warnings(
    trained.model_fn, smoothing, data.to_float(images.images[:_PROBES]),
    num_samples=config.num_samples, alpha=config.alpha, sigma=config.sigma,
    training_sigma=trained.config['sigma'] if noisy else 0.0,
  ):  # fmt: skip
    _progress.warn(warning)
