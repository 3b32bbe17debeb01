"""A training run as a directory: config.json, checkpoints/, metrics.jsonl, and best/ where images are
held out.

The same config again continues at the newest checkpoint; another config refuses.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib

import jax
import jax.numpy as jnp

from certjax import data, parallel, records
from certjax.train._checkpoint import latest_step, restore, save
from certjax.train._load import CONFIG, INPUT_SHAPE, build_module, load_features, read_config
from certjax.train._loop import fit
from certjax.train._metrics import open_metrics
from certjax.train._objectives import objective
from certjax.train._optimizer import optimizer, schedule
from certjax.train._self_supervised import SELF_SUPERVISED
from certjax.train._step import init_state, make_step
from certjax.train._validation import criterion, held_out, scorer, selection

_PROCESS = ('coordinator', 'num_processes', 'process_id')  # Where and in company of whom it runs.
_PACE = ('max_steps', 'log_every', 'save_every_epochs', 'tensorboard')
_MEASURE = 'features_sha256'  # In config.json, where another network measures.
_READ = ('data_dir', 'features')  # Where it reads: what it finds there is compared.
_PLACES = ('out', *_READ, INPUT_SHAPE, *_PACE, *_PROCESS)
"""Fields of the config that do not change what is trained, or follow from others."""


def run(config, smoothing, *, on_start=None, on_log=None, mesh=None):
  """Trains what `config` says, from scratch or from the newest checkpoint.

  Several processes (`parallel.initialize`) call it with one and the same config; `config.out` is a
  directory that all of them see. Process 0 writes config and metrics. SIGTERM to any of them makes
  all save and stop after the same step, and a later run may have another number of processes.

  Args:
    config: a `configs.Train`.
    smoothing: the `Smoothing` whose noise is added, or None.
    on_start: called once as `on_start(step, num_steps)`.
    on_log: called as `on_log(step, metrics)` every `config.log_every` steps. (Each process calls
      its own callbacks.)
    mesh: default all devices.

  Returns:
    The last `TrainState`.

  Raises:
    ValueError: for a config that does not fit the data, the directory's earlier run or the other
      processes.
    OSError: if the directory cannot be written.
  """
  mesh = parallel.data_mesh() if mesh is None else mesh
  with parallel.together():
    _check(config, mesh)
    measure = _measure(config)
    out, config_json = pathlib.Path(config.out), json.loads(_encode(config, **_hashed(measure)))
    _refuse_another(out, config_json, _defaults(config))
    if jax.process_count() > 1 and parallel.is_main():  # It prepares the data for all.
      data.source(config.dataset, 'train', config.data_dir)
  with parallel.together():
    images, validation = held_out(_images(config), config.validation)
    per_epoch = data.steps_per_epoch(data.num_images(images), config.batch_size)
    num_steps = config.num_epochs * per_epoch
    stop = num_steps if config.max_steps is None else min(num_steps, config.max_steps)
    shape = _input_shape(config, smoothing)
    module = build_module(config.model, config.dataset, config.data_dir, shape, config.objective)
    method = objective(
      config.objective, smoothing, sigma=config.sigma,
      warmup_steps=round(config.objective_warmup_epochs * per_epoch),
      features=measure and measure.feature_fn, **config.objective_parameters,
    )  # fmt: skip
    updates = method['replays'].num if 'replays' in method else 1  # A schedule counts them.
    tx = _optimizer(config, per_epoch * updates)
    key_init, key_steps = jax.random.split(jax.random.key(config.seed))
    state = init_state(key_init, module, tx, shape)
    checkpoints = out / 'checkpoints'
    if latest_step(checkpoints) is not None:
      state = restore(checkpoints, state)
    start = int(state.step)
    batches = data.batches(
      images, config.batch_size, seed=config.seed, start=start, num_steps=max(stop - start, 0),
      augment=config.augment, prefetch=2, rows=parallel.local_rows(mesh, config.batch_size),
    )  # fmt: skip
  _check_alike(config_json, start)
  with contextlib.ExitStack() as files:
    with parallel.together():
      write = _open(out, config, shape, measure, start, files) if parallel.is_main() else None
    on_save = lambda state: save(checkpoints, state)
    if validation is not None:
      key_score = jax.random.fold_in(key_steps, num_steps)  # No step folds in as much.
      score = scorer(module, validation, smoothing=smoothing, key=key_score)
      save_every = config.save_every_epochs * per_epoch
      due = lambda step: step % save_every == 0 or step == num_steps
      on_save = selection(
        out, criterion(module, smoothing), score, state=state, due=due, write=write
      )
    if on_start:
      on_start(start, stop)
    return fit(
      make_step(module, tx, **method), state, batches, key=key_steps, mesh=mesh,
      log_every=config.log_every, save_every=config.save_every_epochs * per_epoch,
      on_log=_log(write, on_log), on_save=on_save,
      stopped=parallel.preempted,
    )  # fmt: skip


def _measure(config):
  """The network that `config.features` names, or None."""
  if config.features is None:
    return None
  return load_features(config.features, data.dataset(config.dataset, config.data_dir).shape)


def _hashed(measure):
  """What config.json keeps of a network that measures: its weights, wherever they lie."""
  return {} if measure is None else {_MEASURE: measure.sha256}


def _input_shape(config, smoothing):
  """(H, W, C) of what the model sees: a smoothing may add channels."""
  shape = data.dataset(config.dataset).shape
  if smoothing is None:
    return shape
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.eval_shape(lambda x: smoothing.sample(jax.random.key(0), x), image).shape


def _encode(config, **derived):
  entries = {**dataclasses.asdict(config), **derived}
  return json.dumps(entries, indent=2, sort_keys=True, default=str)


def _refuse_another(out, config, defaults):
  """Raises if the directory holds another config's run."""
  if not (out / CONFIG).exists():
    return
  there = read_config(out)
  ours = {key: value for key, value in config.items() if key not in _PLACES}
  # A config of an older certjax lacks the fields that came later: it ran at their defaults.
  theirs = {key: value for key, value in {**defaults, **there}.items() if key not in _PLACES}
  if different := list(records.differences(ours, theirs)):
    raise ValueError(
      f'{out} holds a run of another config: {"; ".join(different)}. Use another --out, or the '
      f'same config.'
    )


def _defaults(config):
  """The fields of a config that have a default, with it."""
  defaults = {}
  for field in dataclasses.fields(config):
    if field.default is not dataclasses.MISSING:
      defaults[field.name] = field.default
    elif field.default_factory is not dataclasses.MISSING:
      defaults[field.name] = field.default_factory()
  return defaults


def _check_alike(config, start):
  """Raises, on every process, unless all were started alike and found the same checkpoint."""
  alike = {name: config[name] for name in config if name not in (*_READ, *_PROCESS)}
  ours = {**alike, 'checkpoint': start}
  for process, text in enumerate(parallel.gather(json.dumps(ours))):
    if different := list(records.differences(ours, json.loads(text))):
      raise ValueError(
        f'process {process} does not train the same run: {"; ".join(different)} (there: process '
        f'{process}). Start all with one command and one --out that all see; for runs of their own '
        f'use `num_processes`=1.'
      )


def _open(out, config, shape, measure, start, files):
  """Claims the directory; returns the `write` of its metrics, closed with the stack `files`."""
  _write_config(out, config, shape, measure)
  events = out / 'tensorboard' if config.tensorboard else None
  return files.enter_context(open_metrics(out / 'metrics.jsonl', step=start, tensorboard=events))


def _write_config(out, config, shape, measure):
  """Claims a new directory, once nothing speaks against the run; never leaves half a file."""
  if not (out / CONFIG).exists():
    out.mkdir(parents=True, exist_ok=True)
    derived = {} if shape == data.dataset(config.dataset).shape else {INPUT_SHAPE: shape}
    derived |= _hashed(measure)
    (out / f'.{CONFIG}').write_text(_encode(config, **derived) + '\n')
    os.replace(out / f'.{CONFIG}', out / CONFIG)


def _images(config):
  name, spec = f'{config.dataset} train', data.dataset(config.dataset)
  if not spec.fits_in_memory:  # Decoded batch by batch.
    return data.source(config.dataset, 'train', config.data_dir)
  images = data.load(config.dataset, 'train', data_dir=config.data_dir)
  data.check_images(images.images, name=name, shape=spec.shape)
  data.check_labels(images.labels, spec.num_classes, name=f'{name} labels')
  return images


def _log(write, on_log):
  """Writes metrics and passes them on; a run that diverged ends before its next checkpoint."""

  def log(step, metrics):
    if write:
      write(step, metrics)
    if on_log:
      on_log(step, metrics)
    if not math.isfinite(metrics['loss']):
      raise ValueError(
        f'training diverged: the loss is {metrics["loss"]} at step {step}; lower `learning_rate` '
        f'(and use another --out), or lengthen the warm-up.'
      )

  return log


def _optimizer(config, per_epoch):
  decay_every = config.decay_every_epochs
  learning_rate = schedule(
    config.schedule,
    peak=config.learning_rate,
    num_steps=config.num_epochs * per_epoch,
    warmup_steps=round(config.warmup_epochs * per_epoch),
    decay_every=None if decay_every is None else round(decay_every * per_epoch),
  )
  return optimizer(config.optimizer, learning_rate, weight_decay=config.weight_decay)


def _check(config, mesh):
  num_devices = mesh.devices.size
  if config.batch_size < 1 or config.batch_size % num_devices:
    raise ValueError(
      f'`batch_size` must be a multiple of the {num_devices} devices, got {config.batch_size}.'
    )
  for name in ('num_epochs', 'log_every', 'save_every_epochs', 'learning_rate', 'max_steps'):
    value = getattr(config, name)
    if value is not None and not 0 < value < math.inf:
      raise ValueError(f'`{name}` must be positive and finite, got {value}.')
  for name in ('warmup_epochs', 'weight_decay', 'validation'):
    if not 0 <= getattr(config, name) < math.inf:
      raise ValueError(f'`{name}` must be at least 0, got {getattr(config, name)}.')
  if config.validation and config.objective in SELF_SUPERVISED:
    raise ValueError(
      f'`validation` chooses a checkpoint by labels, which `objective`={config.objective!r} must not '
      f'read: leave it at 0.'
    )
