"""`certjax attack`: accuracy under each of several attacks, and in the worst case over them."""

import dataclasses
import pathlib
from typing import NamedTuple

from certjax import configs, records
from certjax.cli import _attack_sets, _parse, _progress, _records, _signals, _subject

_NONE = 'none'
_PROBES = 8  # Images that are looked at before the attacks.
# What is there is hashed.
_PLACES = ('run', 'out', 'data_dir', 'weights', 'shard', 'store', 'features')
_SMOOTHED = ('sigma', 'parameters', 'num_noises', 'num_samples', 'alpha', 'chunk')
_OWN = (
  'attacks',
  'options',
  'norm',
  'eps',
)  # In entries of their own, an attack's with its records.


class _Law(NamedTuple):
  """What a header says of the attacked set."""

  norm: str
  unit: str


def attack(arguments):
  """`certjax attack RUN --eps EPS [options]`."""
  config = _parse.parse(configs.Attack, 'attack', arguments, positional='run')
  if config.out is None and config.run is not None:
    config = dataclasses.replace(config, out=pathlib.Path(config.run) / 'attack')
  print(run(config))
  print(f'everything is in {config.out}')


def run(config) -> str:
  """Attacks what a `configs.Attack` with `out` says; returns the table.

  Raises:
    ValueError: on bad arguments, before anything is written, or if a stored image is not confirmed.
    OSError: if something cannot be written.
    _signals.Terminated: after SIGTERM, with the work so far written.
  """
  import jax

  from certjax import data, evaluate

  subject = _subject.find(config)
  _check(config)
  config = _like_training(config, subject.training)
  spec = data.dataset(subject.training['dataset'], config.data_dir or subject.training['data_dir'])
  threat = configs.threat_of(config.norm, config.eps)
  plan = _plan(config, threat, spec.num_classes)
  smoothing = _smoothing(config, spec.shape)
  images = _records._images(config, subject.training)
  model_fn, variables = subject.load(images, smoothing)
  target = _target(config, model_fn, smoothing)
  climbed, reach, constants = _attack_sets.prepare(config, threat, target, model_fn, images)
  header = {**_header(config, subject.training, smoothing, variables, images), **constants}
  flags = _flags(target, images)
  with _signals.deferred() as stop:
    result = evaluate.attacked(
      jax.random.key(config.seed), config.out, climbed, plan, reach, images, header=header,
      batch_size=config.batch_size, stop=stop, watch=lambda name: _progress.bar(name, 'images'),
    )  # fmt: skip
  flags += _square_flags(result)
  summary = evaluate.attack_summary(
    result, norm=config.norm, eps=config.eps, unit=configs.unit_of(config.norm), flags=flags
  )
  return evaluate.write_attack_report(summary, records.locate(config.out))


def _check(config):
  """Refuses what has no meaning here, before anything is loaded."""
  _parse.check_seed(config.seed)
  if config.eps is None:
    raise ValueError('`eps` has no default: say how far attacks may move, `--norm linf --eps 0.1`.')
  if config.outside_jax:
    raise ValueError(
      '`outside_jax`: attacks follow gradients through the model, which JAX must see.'
    )
  for name in ('shard', 'store'):
    if getattr(config, name) is not None:
      raise ValueError(f'`{name}` is of certify and predict: leave it out.')
  for name in ('batch_size', 'num_noises', 'chunk'):
    if getattr(config, name) < 1:
      raise ValueError(f'`{name}` must be at least 1, got {getattr(config, name)}.')
  if config.features is not None and config.norm != 'lpips':
    raise ValueError(f'`features` measure the distance of `norm` lpips, got norm {config.norm!r}.')
  if not config.attacks:
    raise ValueError(f'`attacks` names none: choose among {", ".join(configs.ATTACKS)}.')
  if len(set(config.attacks)) < len(config.attacks):
    raise ValueError(f'`attacks` names one twice: {", ".join(config.attacks)}.')
  if not isinstance(records.locate(config.out), pathlib.Path):
    raise ValueError(f'`out` keeps adversarial images and must be local, got {config.out}.')


def _like_training(config, training):
  """The config with the method of the training, where it names none; 'none' is the network itself."""
  no_noise = config.method is None and config.sigma is None
  if config.method == _NONE or (no_noise and training['method'] == _NONE):
    return dataclasses.replace(config, method=_NONE)
  return _subject.like_training(config, training)


def _plan(config, threat, num_classes):
  """Name -> parts, of every attack that is asked for."""
  options = {name: {} for name in config.attacks}
  for key, value in config.options.items():
    name, _, parameter = key.partition('.')
    if name not in options or not parameter:
      raise ValueError(
        f'`options` are ATTACK.PARAMETER of an attack that runs, as {config.attacks[0]}.num_steps; got {key!r}.'
      )
    options[name][parameter] = value
  return {
    name: configs.build_attack(name, threat, num_classes, options[name]) for name in config.attacks
  }


def _smoothing(config, shape):
  """The `Smoothing` or `Views` of the attacked model; None where the network itself answers."""
  from certjax import certify, evaluate

  if config.method == _NONE:
    return None
  smoothing = configs.smoothing_of(config.method, config.sigma, config.parameters, shape=shape)
  if isinstance(smoothing, certify.Masked):
    raise ValueError(
      f'{config.method} masks features, and no attack here follows that: --method none attacks its network.'
    )
  if evaluate.is_clean(smoothing):  # The proof is about the network itself.
    return None
  if not evaluate.is_exact(smoothing):
    certify.check_predict_samples(config.num_samples, config.alpha)
  return smoothing


def _target(config, model_fn, smoothing):
  """What is climbed, and who judges."""
  import jax

  from certjax import evaluate

  if smoothing is None:
    return evaluate.plain_target(model_fn, batch_size=config.batch_size)
  if evaluate.is_exact(smoothing):
    return evaluate.views_target(model_fn, smoothing, chunk=config.chunk)
  key = jax.random.fold_in(jax.random.key(config.seed), 1)
  return evaluate.smoothed_target(
    key, model_fn, smoothing, num_noises=config.num_noises, num_samples=config.num_samples,
    alpha=config.alpha, chunk=config.chunk,
  )  # fmt: skip


def _header(config, training, smoothing, variables, images):
  """What all records of the run depend on; each attack adds its own settings."""
  from certjax import evaluate

  settings = dataclasses.asdict(config)
  dropped = {*_PLACES, *_OWN, *(_SMOOTHED if smoothing is None else ())}
  settings = {name: value for name, value in settings.items() if name not in dropped}
  settings['dataset'] = training['dataset']
  law = _Law(config.norm, configs.unit_of(config.norm)) if smoothing is None else smoothing
  header = evaluate.header('attack', settings, law, 'attack, no proof', variables, images)
  own = {'norm': config.norm, 'unit': configs.unit_of(config.norm), 'eps': config.eps}
  return {**header, **own}


def _flags(target, images):
  """Signs that attacks may mislead, from a few images; said at once."""
  from certjax import data, evaluate

  probes = data.take(images, slice(_PROBES))
  flags = evaluate.distrust_flags(
    target.model_fn, data.to_float(probes.images), probes.labels, outputs=target.outputs
  )
  for flag in flags:
    _progress.warn(f'{flag.message} (see {flag.link})')
  return flags


def _square_flags(result):
  """Whether Square did what the parts before it did not."""
  from certjax import evaluate

  flags = []
  for name, parts in result.parts.items():
    broken = [int((~part.survives).sum()) for part in parts[1:] if part.name == 'square']
    flags += evaluate.square_flag(name, sum(broken), len(result.clean.index))
  return flags
