"""The records of a certification or prediction run: begun, or continued where they stop."""

import dataclasses
import socket

from certjax import configs
from certjax.cli import _parse, _progress, _signals, _subject

_PLACES = ('run', 'out', 'data_dir', 'weights', 'shard', 'store')  # What is there is hashed.
_SEQUENTIAL = ('radii', 'tolerance', 'rule', 'fixed_class')
_SAMPLING = ('num_samples', 'num_selection', 'alpha', 'runner_up', 'seed', *_SEQUENTIAL)
_BOUNDED = ('eps', 'largest', 'slope')
_LATER = (*_SEQUENTIAL, *_BOUNDED, 'slack', 'model', 'mean', 'std', 'outside_jax', 'precision', 'dataset',
  'checkpoint',
)  # fmt: skip
_PROBES = 4  # Images that the sanity checks look at.
_TITLES = {'certify': 'certifying', 'predict': 'predicting'}


def write(kind, config):
  """Writes the records that are missing in `config.out`.

  Args:
    kind: 'certify' or 'predict'.
    config: a `configs.Certify` or `configs.Predict` with `out`.

  Returns:
    Whether this process wrote all images, rather than one shard of them.

  Raises:
    ValueError: on bad arguments, before anything is written.
    OSError: if a record cannot be written.
    _signals.Terminated: after SIGTERM, with the work so far written.
  """
  from certjax import data, evaluate, records

  index, count = _subject.shard(config)
  subject = _subject.find(config)
  training = subject.training
  config = _subject.like_training(config, training)
  smoothing, arguments = check(kind, config, data.dataset(training['dataset']).shape)
  images = _images(config, training)
  model_fn, variables = subject.load(images, smoothing)
  network, constants = _network(smoothing, model_fn, data.dataset(training['dataset']).shape)
  header = evaluate.header(
    kind, _settings(config, training, arguments), smoothing,
    configs.METHODS[config.method].quantifier, variables, images, constants,
  )  # fmt: skip
  mine = data.Stream(images.source, images.index[index::count])
  title = _TITLES[kind] + (f' shard {index}/{count}' if count > 1 else '')
  with records.writer(
    config.out, header, shard=(index, count), num_images=len(mine.index), store=config.store
  ) as run:
    done = {record['index'] for record in run.finished}
    rest = data.Stream(mine.source, mine.index[[int(i) not in done for i in mine.index]])
    with _progress.bar(title, 'images') as bar, _signals.deferred() as stop:
      bar.start(len(done), len(mine.index))
      if len(rest.index):
        _warn(config, training, model_fn, smoothing, rest)
        arguments = {**arguments, 'stop': stop}
        made = (
          evaluate.clean_records(network, rest, **arguments)
          if network
          else _make(kind, config, model_fn, smoothing, rest, arguments)
        )
        _append(run, made, bar)
  return count == 1


def check(kind, config, shape):
  """The `Smoothing`, `Views`, or what `is_clean`, and the other arguments of the loop over images.

  Raises:
    ValueError: if they can never give a record.
  """
  from certjax import certify, evaluate

  _parse.check_seed(config.seed)
  named = {name: getattr(config, name, None) for name in _BOUNDED}
  parameters = {name: value for name, value in named.items() if value}
  smoothing = configs.smoothing_of(
    config.method, config.sigma, {**(config.parameters or {}), **parameters}, shape=shape,
    norm=getattr(config, 'norm', None),
  )  # fmt: skip
  arguments, sequential = {'chunk': config.chunk}, _is_sequential(kind, config)
  if evaluate.is_clean(smoothing):
    _check_clean(kind, config, smoothing)
    arguments = {}  # Images go one by one.
  if kind == 'predict' and getattr(smoothing, 'doubt', None) is not None:
    raise ValueError(
      f'`predict` draws views and counts their largest logits; the votes of {config.method} are others: '
      f'`certjax certify` records its labels.'
    )
  if getattr(config, 'slack', None) is not None and not evaluate.is_exact(smoothing):
    raise ValueError(f'`slack` is of exact methods; {config.method} is sampled.')
  if getattr(config, 'slack', None) is not None and not 0 <= config.slack < float('inf'):
    raise ValueError(f'`slack` must be a difference of logits, 0 or more, got {config.slack}.')
  if kind == 'certify' and evaluate.is_exact(smoothing):
    if sequential:
      raise ValueError(f'`radii` and `tolerance` are for sampling; {config.method} is exact.')
    evaluate.check_arguments(kind, smoothing, chunk=config.chunk)
    return smoothing, arguments | ({} if config.slack is None else {'slack': config.slack})
  elif sequential:
    evaluate.check_arguments(kind, smoothing, chunk=config.chunk)
    arguments['rule'] = certify.sequential_rule(
      smoothing, radii=config.radii, tolerance=config.tolerance, max_samples=config.num_samples,
      alpha=config.alpha, method=config.rule,
      num_selection=None if config.fixed_class else config.num_selection,
    )  # fmt: skip
    return smoothing, arguments
  else:
    arguments |= {'num_samples': config.num_samples, 'alpha': config.alpha}
    if kind == 'certify':
      arguments |= {'num_selection': config.num_selection, 'runner_up': config.runner_up}
  evaluate.check_arguments(kind, smoothing, **arguments)
  return smoothing, arguments


def _check_clean(kind, config, smoothing):
  """Refuses what has no meaning without noise."""
  from certjax import certify

  if kind == 'predict':
    raise ValueError(
      f'`predict` votes under noise, {config.method} has none: `certjax certify` records its labels, '
      f'or give a noise, `--method gaussian --sigma 0.25`.'
    )
  if config.precision != 'float32':
    own = 'float32' if isinstance(smoothing, certify.Masked) else 'float64'
    raise ValueError(
      f'`precision` is of sampled methods: {config.method} evaluates in {own}, whatever it is.'
    )
  if not isinstance(smoothing, certify.Bounded):
    return
  if config.outside_jax:
    raise ValueError(f'{config.method} reads the steps of a model in JAX: leave --outside-jax out.')
  if config.slack is not None:
    raise ValueError(f'`slack` is of votes and margins; {config.method} has none.')


def _network(smoothing, model_fn, shape):
  """The network of a proof without noise and what it takes from the weights, else (None, None)."""
  from certjax import evaluate

  if not evaluate.is_clean(smoothing):
    return None, None
  network = evaluate.clean_network(model_fn, smoothing, shape=shape)
  return network, getattr(network, 'constants', None)


def _is_sequential(kind, config):
  """Whether a sequential test is asked for; refuses options that then have no meaning."""
  if kind != 'certify':
    return False
  sequential = config.radii is not None or config.tolerance is not None
  if not sequential and (config.rule is not None or config.fixed_class):
    raise ValueError(
      '`rule` and `fixed_class` are of sequential tests: give --radii or --tolerance.'
    )
  if sequential and config.runner_up:
    raise ValueError(
      '`runner_up` has no sequential form: leave it, or --radii and --tolerance, out.'
    )
  return sequential


def _make(kind, config, model_fn, smoothing, images, arguments):
  """The generator of (record, seconds)."""
  import jax

  from certjax import evaluate

  make = evaluate.predicted_records if kind == 'predict' else evaluate.certified_records
  if 'rule' in arguments:
    make = evaluate.sequential_records
  elif kind == 'certify' and evaluate.is_exact(smoothing):
    make = evaluate.enumerated_records
  return make(jax.random.key(config.seed), model_fn, smoothing, images, **arguments)


def _append(run, made, bar):
  """Appends one record an image as it is decided."""
  import jax

  host, device = socket.gethostname(), str(jax.local_devices()[0].device_kind)
  for record, seconds in made:
    run.append(record, {'seconds': round(seconds, 6), 'host': host, 'device': device})
    bar.advance()


def _settings(config, training, arguments):
  """The part of the config that the records depend on: of an exact method no samples."""
  settings = dataclasses.asdict(config)
  sampled = 'alpha' in arguments or 'rule' in arguments
  defaults = {field.name: field.default for field in dataclasses.fields(config)}
  dropped = {
    *_PLACES,
    *(() if sampled else _SAMPLING),
    *(() if 'chunk' in arguments else ('chunk', 'sigma')),
    *(() if 'num_selection' in arguments or 'rule' in arguments else ('num_selection',)),
    *(name for name in _LATER if name in settings and settings[name] == defaults[name]),
  }
  settings = {key: value for key, value in settings.items() if key not in dropped}
  return settings | {'dataset': training['dataset']}


def _images(config, training):
  from certjax import data

  source = data.source(training['dataset'], config.split, config.data_dir or training['data_dir'])
  indices = data.subset(
    len(source), skip=config.skip, max_images=config.max_images, evenly=config.evenly
  )
  return data.stream(source, indices)


def _warn(config, training, model_fn, smoothing, images):
  """Says what the library finds odd about the model and the setting."""
  from certjax import data, evaluate

  known = training['sigma'] if training['method'] != 'none' else 0.0
  probes = data.to_float(data.take(images, slice(_PROBES)).images)
  for warning in evaluate.sanity_warnings(
    model_fn, smoothing, probes, num_samples=config.num_samples, alpha=config.alpha,
    sigma=config.sigma, training_sigma=None if config.model else known,
  ):  # fmt: skip
    _progress.warn(warning)
