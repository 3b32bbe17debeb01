"""What a training run left, as a model again: its config, its newest or best weights, its features."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax import data, records
from certjax.models import bind, build, features_of
from certjax.train._checkpoint import restore
from certjax.train._self_supervised import num_outputs

CONFIG = 'config.json'
INPUT_SHAPE = 'input_shape'  # In config.json, where it is not that of the data set's images.
CHECKPOINTS = {'latest': 'checkpoints', 'best': 'best'}
"""What `load_run` may load, and the folder it lies in."""
_NEEDED = ('dataset', 'data_dir', 'model', 'method', 'sigma')  # By who reads a trained run.


class TrainedRun(NamedTuple):
  """What `load_run` finds in a directory.

  Attributes:
    config: dict, the config of the training.
    model_fn: the trained model, as `models.bind` makes it.
    variables: its weights, numpy arrays.
    step: int, steps trained.
  """

  config: dict
  model_fn: Any
  variables: Any
  step: int


class Measure(NamedTuple):
  """A trained network whose activations measure a distance.

  Attributes:
    feature_fn: its `FeatureFn`, a `jax.tree_util.Partial` of its weights.
    sha256: of the weights, as the headers of records hold it.
  """

  feature_fn: Any
  sha256: str


def load_run(directory, checkpoint='latest') -> TrainedRun:
  """The trained model of a run's directory.

  Args:
    directory: of the run.
    checkpoint: 'latest', or 'best' by the images that `validation` held out.

  Returns:
    A `TrainedRun`.

  Raises:
    ValueError: if the directory holds no run, or its checkpoint cannot be read.

  Example:
    >>> load_run('nowhere')
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no training run (no config.json): run `certjax train` first.
  """
  if checkpoint not in CHECKPOINTS:
    raise ValueError(f'`checkpoint` must be one of {", ".join(CHECKPOINTS)}; got {checkpoint!r}.')
  directory = pathlib.Path(directory)
  config = read_config(directory)
  if checkpoint == 'best' and not config.get('validation'):
    raise ValueError(
      f"`checkpoint`='best' is chosen by held-out images, and {directory} held out none: train with "
      f'`--validation 500` or so, or take the latest.'
    )
  shape = tuple(config.get(INPUT_SHAPE) or data.dataset(config['dataset']).shape)
  module = build_module(
    config['model'], config['dataset'], config['data_dir'], shape, config.get('objective')
  )
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))
  template = {'batch_stats': {}, **variables}
  step, variables = restore_variables(directory / CHECKPOINTS[checkpoint], template)
  return TrainedRun(config, bind(module, variables), variables, step)


def load_features(directory, shape) -> Measure:
  """The network of a run, to measure distances of images in.

  Args:
    directory: of the run.
    shape: (H, W, C) of the images.

  Returns:
    A `Measure`.

  Raises:
    ValueError: as `load_run`; for a network without default taps, or one that does not take such images.

  Example:
    >>> load_features('nowhere', (8, 8, 1))
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no training run (no config.json): run `certjax train` first.
  """
  trained = load_run(directory)
  feature_fn = features_of(trained.model_fn)
  try:
    jax.eval_shape(feature_fn, jnp.zeros((1, *shape)))
  except Exception as error:  # Flax has classes of its own.
    raise ValueError(
      f'`features`: the network of {directory} does not take images of shape {tuple(shape)}: choose a '
      f'run on such images.'
    ) from error
  return Measure(feature_fn, records.fingerprint(jax.tree.map(np.asarray, trained.variables)))


def build_module(name, dataset, data_dir, shape, objective):
  """The model of a run for inputs of a shape.

  Without normalisation where its channels are not the data set's. Its outputs are the classes, but of an
  objective without labels.

  Args:
    name: of the architecture.
    dataset, data_dir: of the training.
    shape: (H, W, C) of what the model sees.
    objective: of the training.
  """
  spec = data.dataset(dataset, data_dir)
  mean, std = spec.mean, spec.std
  if shape[-1] != spec.shape[-1]:
    mean, std = (0.0,) * shape[-1], (1.0,) * shape[-1]
  return build(name, num_classes=num_outputs(objective, spec.num_classes), mean=mean, std=std)


def restore_variables(checkpoints, template):
  """(step, weights) of the newest checkpoint, checked against `template`'s shapes."""
  state = restore(checkpoints)
  variables = {name: state[name] for name in template if name in state}
  shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (variables, template)]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f'the checkpoint in {checkpoints} is of another architecture than config.json.'
    )
  return int(state['step']), variables


def read_config(directory) -> dict:
  """The config of a run.

  Args:
    directory: of the run.

  Returns:
    A dict of JSON values.

  Raises:
    ValueError: if there is none, or it is not JSON.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   config = {'dataset': 'digits', **dict.fromkeys(_NEEDED)}
    ...   _ = (pathlib.Path(folder) / CONFIG).write_text(json.dumps(config))
    ...   sorted(read_config(folder))
    ['data_dir', 'dataset', 'method', 'model', 'sigma']
  """
  path = pathlib.Path(directory) / CONFIG
  if not path.is_file():
    raise ValueError(f'{directory} holds no training run (no {CONFIG}): run `certjax train` first.')
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}): restore it, or train elsewhere.') from error
  if not isinstance(config, dict) or (missing := [key for key in _NEEDED if key not in config]):
    what = f'lacks {", ".join(missing)}' if isinstance(config, dict) else 'is no object'
    raise ValueError(f'{path} {what}: not the config of a training run; train elsewhere.')
  return config
