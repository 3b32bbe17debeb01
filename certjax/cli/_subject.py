"""What is evaluated: a trained run, published weights, or a model of the user's own."""

import dataclasses
import importlib
import os
import sys
from typing import Any, NamedTuple

_PRECISIONS = ('float32', 'bfloat16')
_PROOFS = {'crt': 'crc', 'masked-features': 'patchguard'}  # Objective -> what it trains for.
_SRUN = ('SLURM_STEP_NODELIST', 'SLURM_PROCID', 'SLURM_NTASKS')  # The first is set by srun alone.


class Subject(NamedTuple):
  """A model and what is known about it.

  Attributes:
    training: dict, the config of its training, or what stands for it.
    load: `(images, smoothing) -> (model_fn, tree that stands for its weights)`.
  """

  training: dict
  load: Any


def find(config) -> Subject:
  """What RUN or --model of a config means; nothing is loaded yet.

  Raises:
    ValueError: if neither or both are given, or options are missing.
  """
  if config.precision not in _PRECISIONS:
    raise ValueError(
      f'`precision` must be one of {", ".join(_PRECISIONS)}, got {config.precision!r}.'
    )
  if (config.run is None) == (config.model is None):
    raise ValueError(
      'evaluate what? Give RUN, the directory of a `certjax train`, or --model with --dataset '
      '(see `certjax certify --help`).'
    )
  if config.run is not None:
    return _trained(config)
  if config.checkpoint != 'latest':
    raise ValueError('`checkpoint` chooses among those of RUN; --model has its --weights.')
  if config.dataset is None or config.out is None:
    raise ValueError('`--model` needs a --dataset to evaluate on, and an --out for the records.')
  training = {
    'dataset': config.dataset, 'data_dir': config.data_dir, 'method': 'none', 'sigma': None,
    'model': config.model,
  }  # fmt: skip
  load = _own if ':' in config.model else _published
  return Subject(training, lambda images, smoothing: load(config, images, smoothing))


def _trained(config):
  from certjax import train

  for name in ('weights', 'mean', 'std', 'outside_jax', 'dataset'):
    if getattr(config, name) not in (None, False):
      raise ValueError(f'`{name}` goes with --model; {config.run} has its own.')

  def load(images, smoothing):
    trained = train.load_run(config.run, config.checkpoint)
    _check_seen(config.run, trained.config, images, smoothing)
    return _rounded(config, trained.model_fn), trained.variables

  training = train.read_config(config.run)
  if training.get('objective') in train.SELF_SUPERVISED:
    raise ValueError(
      f'{config.run} was trained without labels ({training["objective"]}), and knows no classes: '
      f'`certjax poison ss-dpa --features {config.run}` learns from its features.'
    )
  return Subject(training, load)


def _check_seen(run, training, images, smoothing):
  """Refuses a method that shows the model images of another shape than its training did."""
  from certjax import data

  x = data.to_float(data.take(images, slice(1)).images)
  shape, seen = tuple(training.get('input_shape') or x.shape[1:]), _seen(smoothing, x).shape[1:]
  if seen != shape:
    raise ValueError(
      f'the model of {run} sees images of shape {shape} (trained by `method` {training["method"]}), '
      f'and this method shows it {seen}: choose one like that of its training.'
    )


def _published(config, images, smoothing):
  """An architecture by its name, with weights from a file."""
  from certjax import data, models

  if config.weights is None:
    raise ValueError(
      f'`model`={config.model!r} is an architecture: say where its --weights are (or give '
      f'package.module:name, a model of your own).'
    )
  spec = data.dataset(config.dataset, config.data_dir)
  x = data.to_float(data.take(images, slice(1)).images)
  seen = _seen(smoothing, x)
  # The data set's normalisation is of its own channels.
  usual = (spec.mean, spec.std) if seen is x else ((0.0,), (1.0,))
  module = models.build(
    config.model, num_classes=spec.num_classes, mean=config.mean or usual[0],
    std=config.std or usual[1],
  )  # fmt: skip
  shape = seen.shape[1:]
  variables = models.load_weights(config.weights, module, shape=shape)
  return _rounded(config, models.bind(module, variables)), variables


def _own(config, images, smoothing):
  """package.module:name, imported from the working directory or the environment.

  A function hides its weights; its logits on some images stand for them.
  """
  import jax
  import numpy as np

  from certjax import certify, data, models

  found = _import(config.model)
  if config.outside_jax:
    spec = data.dataset(config.dataset, config.data_dir)
    model_fn = certify.outside(found, num_classes=spec.num_classes)
    if config.precision != 'float32':
      raise ValueError("`precision` is of models in JAX: with --outside-jax it is the model's own.")
  else:
    model_fn = _rounded(config, models.as_model_fn(found))
  x = _seen(smoothing, data.to_float(data.take(images, slice(8)).images))
  try:
    logits = certify.evaluate(model_fn, x)
  except Exception as error:  # Whatever the user's code raises, in one line.
    raise ValueError(
      f'{config.model} does not take images of shape {x.shape}: {type(error).__name__}: {error}'
    ) from error
  leaves = jax.tree.leaves(model_fn) if isinstance(model_fn, jax.tree_util.Partial) else []
  return model_fn, {'leaves': [np.asarray(leaf) for leaf in leaves], 'logits': logits}


def _seen(smoothing, x):
  """The images, or draws around them where the smoothing shows the model another shape."""
  import jax

  sample = getattr(smoothing, 'sample', None)
  keys = jax.random.split(jax.random.key(0), len(x))
  if sample is None or jax.eval_shape(sample, keys[0], x[0]).shape == x.shape[1:]:
    return x
  return jax.vmap(sample)(keys, x)


def _import(name):
  module, _, attribute = name.partition(':')
  if os.getcwd() not in sys.path:
    sys.path.insert(0, os.getcwd())
  try:
    found = importlib.import_module(module)
    for part in attribute.split('.'):
      found = getattr(found, part)
  except Exception as error:  # An import runs the user's code: anything may come.
    raise ValueError(f'`model`={name!r}: {type(error).__name__}: {error}') from error
  return found


def _rounded(config, model_fn):
  from certjax import models

  return models.in_bfloat16(model_fn) if config.precision == 'bfloat16' else model_fn


def like_training(config, training):
  """The config with method, noise and parameters of the training where it names none.

  Without any noise named, a network that was trained at bounds is certified by them, at the radius of
  its training, one trained at its curvature or at masked features by these, and one that states its
  Lipschitz constant by that.

  Raises:
    ValueError: if no noise is known, and no constant.
  """
  if config.method is None and config.sigma is None and (by_bounds := _trained_at_bounds(training)):
    method, parameters = by_bounds
    parameters = {**parameters, **(config.parameters or {})}
    return dataclasses.replace(config, method=method, parameters=parameters)
  if config.method is None and training['method'] == 'none':
    if config.sigma is None and _states_constant(training['model']):
      return dataclasses.replace(config, method='lipschitz', parameters=config.parameters or {})
    if config.sigma is None:
      what = f'{config.run} was trained without noise' if config.run else f'{config.model} is yours'
      raise ValueError(f'{what}: say which noise to certify under, `--sigma 0.25`.')
    return dataclasses.replace(config, method='gaussian', parameters=config.parameters or {})
  same = config.method in (None, training['method'])
  parameters = training.get('parameters', {}) if same else {}
  return dataclasses.replace(
    config,
    method=config.method or training['method'],
    sigma=training['sigma'] if config.sigma is None else config.sigma,
    parameters=parameters if config.parameters is None else config.parameters,
  )


def _trained_at_bounds(training):
  """(method, its parameters) that a training aimed at, at bounds or another proof; None for any other."""
  from certjax import train

  objective = training.get('objective')
  if objective in _PROOFS:
    return _PROOFS[objective], {}
  if objective in train.REPLACED:
    name, default = train.REPLACED[objective]
    return objective, {name: training['objective_parameters'].get(name, default)}
  if objective not in train.CERTIFIED:
    return None
  proofs = {'crown-ibp': 'crown-ibp', 'diffai': 'crown', 'wong-kolter': 'crown'}
  method = proofs.get(objective, 'ibp')
  return method, {'eps': training['objective_parameters'].get('eps', train.DEFAULT_EPS)}


def _states_constant(name):
  """Whether an architecture is a network with a proved Lipschitz constant."""
  from certjax import models

  return name in models.REGISTRY and hasattr(models.build(name, num_classes=2), 'lipschitz')


def shard(config):
  """(i, n): the part of the images that this process takes.

  `--shard i/n`, else Slurm's task, else JAX's process where it knows several.

  Raises:
    ValueError: unless 0 <= i < n.
  """
  if config.shard is not None:
    parts = config.shard.split('/')
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
      raise ValueError(f'`shard` must be i/n, as 0/4, got {config.shard!r}.')
    index, count = map(int, parts)
  elif all(name in os.environ for name in _SRUN):
    index, count = int(os.environ['SLURM_PROCID']), int(os.environ['SLURM_NTASKS'])
  else:
    import jax

    index, count = jax.process_index(), jax.process_count()
  if not 0 <= index < count:
    raise ValueError(f'`shard` i/n counts from 0: 0 <= i < n, got {index}/{count}.')
  return index, count
