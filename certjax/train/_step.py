"""The training step, per replica: perturb, add noise, descend the loss.

Noise augmentation, adversarial training, TRADES, SmoothAdv, IBP and PAT are this one step with
another `perturb` and another `loss`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from certjax import parallel
from certjax.layers import SPECTRAL
from certjax.models import bind
from certjax.train._free import replay

_PERTURB, _NOISE, _LOSS = 0, 1, 2  # Folded into each example's key: independent draws.


class TrainState(NamedTuple):
  """All that a training run carries from step to step.

  Attributes:
    step: int32 scalar, steps done.
    params: trained variables.
    batch_stats: BatchNorm's running statistics; {} without BatchNorm.
    opt_state: the optimiser's.
    spectral: what Lipschitz layers estimate of their spectra; {} without any.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  spectral: Any = {}

  @property
  def variables(self):
    """What `models.bind` takes."""
    return {'params': self.params, **self.statistics}

  @property
  def statistics(self):
    """What a pass in training mode moves beside the gradient: the collections, by name."""
    spectral = {SPECTRAL: self.spectral} if self.spectral else {}
    return {'batch_stats': self.batch_stats, **spectral}


def init_state(key, module, tx, shape) -> TrainState:
  """A fresh `TrainState` for images of `shape` = (H, W, C).

  Args:
    key: one typed key.
    module: a `flax.linen.Module`.
    tx: an optax optimiser.
    shape: (H, W, C).

  Returns:
    A `TrainState` of step 0.

  Example:
    >>> import optax
    >>> from certjax import models
    >>> state = init_state(jax.random.key(0), models.MLP(3, hidden=(2,)), optax.sgd(0.1), (2, 2, 1))
    >>> int(state.step), state.params['dense0']['kernel'].shape
    (0, (4, 2))
  """
  variables = jax.jit(module.init)(key, jnp.zeros((1, *shape)))
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  spectral = variables.get(SPECTRAL, {})
  return TrainState(jnp.int32(0), params, batch_stats, tx.init(params), spectral)


def make_step(module, tx, loss, *, smoothing=None, perturb=None, weights=None, replays=None):
  """The per-replica training step; map it with `parallel.pmap`.

  Randomness is counter based: example i at step t draws from
  fold_in(fold_in(root, t), index_i), so that noise is fresh at every step, and a resumed run or another
  number of devices sees the same noise.

  Args:
    module: a `flax.linen.Module` called as `module(x, train=...)`.
    tx: an optax optimiser.
    loss: `(keys[B], apply, x, y, step) -> (scalar, (metrics, batch_stats))`, a mean over its
      batch; `apply(x, train) -> (logits, batch_stats)`, with 'spectral' among the statistics.
    smoothing: its noise is added to each image, after `perturb`.
    perturb: `(keys[B], model_fn, x, y, step) -> x'`; the model is in evaluation mode. Arrays of a
      `jax.tree_util.Partial`, such as another network's weights, stay arguments of the step.
    weights: `(params, gradient, step) -> params'`, where the loss is differentiated: `awp` moves
      them along a first gradient of the same loss. The update is that of the params themselves.
    replays: a `Replays`: a step then is several updates on one minibatch, whose points move
      between them (`free_adversarial`).

  Returns:
    `step(state, key, batch) -> (state, metrics)` with batch = {'x': uint8 or float[B, H, W, C],
    'y': int32[B], 'index': int32[B]}; gradients, metrics and BatchNorm statistics are means
    over the mesh axis; a `jax.tree_util.Partial` where `perturb` is one.

  Example:
    >>> import optax
    >>> from certjax import models, parallel
    >>> from certjax.train import cross_entropy
    >>> module, tx = models.MLP(3, hidden=(2,)), optax.sgd(0.1)
    >>> state = init_state(jax.random.key(0), module, tx, (2, 2, 1))
    >>> mesh, whole = parallel.data_mesh(jax.devices()[:1]), parallel.REPLICATED
    >>> step = parallel.pmap(make_step(module, tx, cross_entropy), mesh, (whole,) * 3, (whole,) * 2)
    >>> batch = {'x': jnp.ones((2, 2, 2, 1)), 'y': jnp.zeros(2, jnp.int32), 'index': jnp.arange(2)}
    >>> state, metrics = step(state, jax.random.key(1), batch)
    >>> int(state.step), sorted(metrics)
    (1, ['accuracy', 'loss'])
  """

  def step(perturb, state, key, batch):
    x, y = as_pixels(batch['x']), batch['y']
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      jax.random.fold_in(key, state.step), batch['index']
    )
    keys_perturb, keys_noise, keys_loss = (
      jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in (_PERTURB, _NOISE, _LOSS)
    )
    images = x
    if perturb is not None:
      x = perturb(keys_perturb, bind(module, state.variables), x, y, state.step)
    if smoothing is not None:
      x = jax.vmap(smoothing.sample)(keys_noise, x)
    descend = lambda state, x: update(state, keys_loss, x, y)
    if replays is None:
      state, metrics = descend(state, x)
    else:
      state, metrics = replay(replays, descend, state, images, x)
    return state._replace(step=state.step + 1), metrics

  def update(state, keys, x, y):
    """(state, metrics) of one descent, and for replays the gradient in x."""

    def objective(params, x):
      apply = _apply(module, params, state.statistics)
      return loss(keys, apply, x, y, state.step)

    params = state.params
    if weights is not None:
      ascent, _ = jax.grad(objective, has_aux=True)(params, x)
      params = weights(params, lax.pmean(ascent, parallel.AXIS), state.step)
    arguments = (0,) if replays is None else (0, 1)
    gradient_of = jax.value_and_grad(objective, arguments, has_aux=True)
    (value, (metrics, stats)), (grads, *of_x) = gradient_of(params, x)
    metrics = {'loss': value, **metrics}
    grads, metrics, stats = lax.pmean((grads, metrics, stats), parallel.AXIS)
    with jax.numpy_dtype_promotion('standard'):  # optax raises floats to int32 powers.
      updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, opt_state=opt_state, **stats), metrics, *of_x

  if isinstance(perturb, jax.tree_util.Partial):
    return jax.tree_util.Partial(step, perturb)
  return lambda state, key, batch: step(perturb, state, key, batch)


def as_pixels(x):
  """float32 in [0, 1] from uint8 grey levels; float images pass through."""
  return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _apply(module, params, statistics):
  def apply(x, train):
    variables = {'params': params, **statistics}
    if not train:
      return module.apply(variables, x, train=False), statistics
    logits, updated = module.apply(variables, x, train=True, mutable=list(statistics))
    return logits, {**statistics, **updated}

  return apply
