"""Which checkpoint to keep, told by images held out of the training split: never by the test set.

metrics.jsonl is the one record of how good a checkpoint was. A line is written before its checkpoint,
and that before the copy in best/, so that a run killed anywhere between finds out when it is
resumed, and ends with the lines and the copy of an uninterrupted one.
"""

import json
import math
import shutil

import jax
import numpy as np

from certjax import certify, data, layers, parallel
from certjax.models import bind
from certjax.train._checkpoint import latest_step, save
from certjax.typing import Key

ACCURACY, CERTIFIED = 'validation_accuracy', 'validation_certified_accuracy'
RADIUS = 36 / 255
"""L2 radius in pixel values at which Lipschitz networks are compared."""
_BATCH = 500


def held_out(images, count):
  """(training images, images held out): numbers floor(i N / count), i = 0 .. count - 1, of N.

  They keep their dataset indices, so augmentation and noise of the others stay what they were.

  Args:
    images: `data.Images`; or a `data.Source`, where nothing is held out.
    count: how many; 0 holds out none (None comes back).

  Raises:
    ValueError: if too few remain to train on, or the images do not lie in memory.
  """
  if not count:
    return images, None
  if isinstance(images, data.Source):
    raise ValueError(
      f'`validation` needs a data set that fits in memory, which {images.spec.name} does not: '
      f'leave it at 0.'
    )
  num_images = len(images.labels)
  if not count < num_images:
    raise ValueError(
      f'`validation` must leave images to train on: below {num_images}, got {count}.'
    )
  rows = data.subset(num_images, evenly=count)
  rest = np.setdiff1d(np.arange(num_images), rows)
  return data.take(images, rest), data.take(images, rows)


def criterion(module, smoothing=None):
  """The metric that decides: certified accuracy where the module states its constant, without noise."""
  stated = smoothing is None and callable(getattr(module, 'lipschitz', None))
  return CERTIFIED if stated else ACCURACY


def scorer(module, images, *, smoothing=None, key: Key = None):
  """A function `state -> metrics` of the held-out images, in one fixed batch shape.

  A model that is trained under noise is judged under it, with one draw an image that is the same every
  time. Where the module states a Lipschitz constant, and there is no noise, the share of images that
  are certified at `RADIUS` comes beside it: of float32 logits, to choose by and not to publish.

  Args:
    module: a `flax.linen.Module`.
    images: `data.Images`.
    smoothing: what is trained under, or None.
    key: root key of its draws.
  """

  @jax.jit
  def evaluate(model_fn, x, index):
    if smoothing is not None:
      keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
      x = jax.vmap(smoothing.sample)(keys, x)
    return model_fn(x)

  def score(state):
    variables = jax.tree.map(np.asarray, state.variables)
    model_fn = bind(module, variables)
    logits = np.concatenate(
      [
        np.asarray(evaluate(model_fn, data.to_float(batch['x']), batch['index']))[mask]
        for batch, mask in data.eval_batches(images, min(_BATCH, len(images.labels)))
      ]
    )
    metrics = {ACCURACY: np.mean(np.argmax(logits, axis=-1) == images.labels)}
    if criterion(module, smoothing) == CERTIFIED:
      metrics[CERTIFIED] = _certified(module, variables, logits, images.labels)
    return {name: float(value) for name, value in metrics.items()}

  return score


def selection(out, name, score, *, state, due, write):
  """The `on_save` of a run that keeps its best checkpoint in out/best beside the newest.

  Args:
    out: directory of the run.
    name: of the metric that decides, from `criterion`.
    score: from `scorer`.
    state: where the run stands.
    due: `(step) -> bool`, whether this checkpoint is judged.
    write: of the metrics, None on all processes but the first.

  Returns:
    `(state) -> None`; every process must call it.
  """
  best_dir = out / 'best'
  best, step = _best_so_far(out / 'metrics.jsonl', name)
  if step == int(state.step) and latest_step(best_dir) != step:
    _keep(best_dir, state)  # It was killed between its checkpoint and the copy.

  def on_save(state):
    nonlocal best
    step = int(state.step)
    metrics = _first(score(state)) if due(step) else {}
    if metrics and write:
      write(step, metrics)
    save(out / 'checkpoints', state)
    if metrics.get(name, -math.inf) > best:
      best = metrics[name]
      _keep(best_dir, state)

  return on_save


def _best_so_far(path, name):
  """(value, step) of the first best line, (-inf, None) without any; the same on all processes."""
  found = {'value': -math.inf, 'step': None}
  if parallel.is_main() and path.exists():
    for line in map(json.loads, path.read_text().splitlines()):
      if line.get(name, -math.inf) > found['value']:
        found = {'value': line[name], 'step': line['step']}
  found = _first(found)
  return found['value'], found['step']


def _first(values):
  """What process 0 holds: the others must decide alike, to the last bit."""
  return json.loads(parallel.gather(json.dumps(values))[0])


def _keep(directory, state):
  """Makes `state` the one checkpoint of a directory.

  A later one may be there if the newest checkpoints of the run were deleted: the run comes back to it.
  """
  with parallel.together():
    while parallel.is_main() and (latest_step(directory) or 0) >= int(state.step):
      shutil.rmtree(directory / str(latest_step(directory)))
  save(directory, state, keep=1)


def _certified(module, variables, logits, labels):
  """Share of images whose certified radius is at least `RADIUS`."""
  rows = getattr(module, 'last_layer', lambda variables: None)(variables)
  bound = 1.0 if rows is not None else layers.lipschitz_upper(module, variables)
  if not math.isfinite(bound):
    return 0.0
  proof = certify.margin(logits, lipschitz=bound, last_layer=rows)
  return np.mean((proof.label == labels) & (proof.radius >= RADIUS))
