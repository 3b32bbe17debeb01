"""PGD on the content of a square patch, over many places of it, and what it climbs for `Views`.

Levine & Feizi 2020 attack derandomized smoothing so: sign gradients on the mean softmax of all views.
One trace: a scan over the steps at all places, each one forward and one backward pass; the places
reach the last row and column.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax.attacks._loss import cross_entropy
from certjax.attacks._pgd import _keep, _sum_and_each, row_keys
from certjax.tracing import is_traced


def patch_pgd(
  *,
  side,
  step_size,
  num_steps,
  num_locations=None,
  locations=None,
  random_start=True,
  loss=cross_entropy,
):
  """Ascends the loss inside one square at a time, and keeps the best of all squares.

    x_{t+1} = clip(x_t + step_size * sign(grad loss(model_fn(x_t), y)), 0, 1)  inside, x outside

  Args:
    side: static side of the square in pixels.
    step_size: in pixel values; Levine & Feizi take 0.05.
    num_steps: static number of steps at each place; theirs is 150.
    num_locations: how many places, drawn for each image, no place twice; theirs is 80. By default all
      (H - side + 1) (W - side + 1).
    locations: int[L, 2], the first row and column of the squares to try, instead.
    random_start: start at uniform colours instead of at x.
    loss: `(logits[K], y) -> scalar`, made large.

  Returns:
    An `Attack`. Of all points visited, x among them, it returns the one with the largest loss. It
    costs places * (num_steps + 1) forward and backward passes, and one forward pass. Against a vote
    over `Views` let it climb `mean_of_views(model_fn, views)`, and judge x_adv by the vote itself:
    `certify.enumerated(model_fn, views, x_adv).label`.

  Raises:
    ValueError: unless `side` is a whole number that fits in the image, `num_steps` at least 0 and
      `step_size` positive; for `locations` outside the image, or beside `num_locations`.

  Example:
    >>> model_fn = lambda x: jnp.stack([x[:, 0, :, 0] @ jnp.array([1.0, 2.0]), jnp.ones(1)], axis=1)
    >>> attack = patch_pgd(side=1, step_size=0.5, num_steps=2)
    >>> attack(jax.random.key(0), model_fn, jnp.full((1, 1, 2, 1), 0.5), jnp.array([0])).ravel().tolist()
    [0.5, 0.0]

  References:
    Levine & Feizi 2020 (arXiv:2002.10733).
  """
  _check(side, step_size, num_steps, num_locations, locations)
  side, period = int(side), num_steps + 1

  def attack(key, model_fn, x, y):
    places = _places(x.shape[1:3], side, locations)
    key_order, key_colour = jax.vmap(jax.random.split, out_axes=1)(row_keys(key, len(x)))
    order = jax.vmap(lambda key: _order(key, len(places), num_locations))(key_order)
    value_and_gradient = jax.value_and_grad(
      lambda x: _sum_and_each(jax.vmap(loss)(model_fn(x), y)), has_aux=True
    )

    def start(key, number, x, place):
      if not random_start:
        return x
      colours = jax.random.uniform(jax.random.fold_in(key, number), x.shape, x.dtype)
      return jnp.where(_inside(place, side, x.shape), colours, x)

    def step(carry, index):
      point, best = carry
      number = index // period
      place = jnp.asarray(places)[order[:, number]]
      fresh = lambda point: jax.vmap(start, (0, None, 0, 0))(key_colour, number, x, place)
      point = lax.cond(index % period == 0, fresh, lambda point: point, point)
      (_, value), gradient = value_and_gradient(point)
      best = _keep(best, (point, value))
      inside = jax.vmap(lambda place: _inside(place, side, x.shape[1:]))(place)
      ahead = jnp.clip(point + step_size * jnp.sign(gradient), 0, 1)
      return (jnp.where(inside, ahead, x), best), None

    best = (x, jax.vmap(loss)(model_fn(x), y))
    steps = jnp.arange(order.shape[1] * period, dtype=jnp.int32)
    return lax.scan(step, (x, best), steps)[0][1][0]

  return attack


def mean_of_views(model_fn, views, *, chunk=16):
  """The mean softmax of `model_fn` over all views of an image: differentiable, no vote.

    g(x) = log( (1/V) sum_v softmax(f(view_v(x))) )

  Views are seen `chunk` at a time, and seen again for the gradient, so that memory does not grow
  with their number: a gradient costs two forward passes and one backward pass a view.

  Args:
    model_fn: `x~[B, ...] -> logits[B, K]`, of views.
    views: `Views`, such as `smoothing.bands(...)`.
    chunk: views at once; the model sees B * chunk rows.

  Returns:
    A `ModelFn` of images; its outputs are log probabilities. What it gets wrong the vote may get
    right, and the other way round: `certify.enumerated` judges.

  Raises:
    ValueError: if `chunk` is below 1.

  Example:
    >>> from certjax import smoothing
    >>> views = smoothing.bands(width=1, shape=(2, 3, 1))
    >>> g = mean_of_views(lambda x: x.sum((1, 2)), views, chunk=2)
    >>> round(float(jnp.exp(g(jnp.ones((1, 2, 3, 1))))[0, 0]), 4)  # 1 / (1 + e^-2) in every view.
    0.8808

  References:
    Levine & Feizi 2020 (arXiv:2002.10733).
  """
  if chunk < 1:
    raise ValueError(f'`chunk` is a number of views, at least 1, got chunk={chunk}.')
  chunk = min(chunk, views.num_views)
  blocks = -(-views.num_views // chunk)

  def smoothed(x):
    @jax.checkpoint
    def block(numbers):
      seen = jax.vmap(jax.vmap(views.view, (None, 0)), (0, None))(x, numbers)
      logits = model_fn(seen.reshape(-1, *seen.shape[2:]))
      return jax.nn.log_softmax(logits).reshape(len(x), chunk, -1)

    numbers = jnp.arange(blocks * chunk, dtype=jnp.int32) % views.num_views  # The rest is cut off.
    each = lax.map(block, numbers.reshape(blocks, chunk))
    each = jnp.moveaxis(each, 1, 0).reshape(len(x), blocks * chunk, -1)[:, : views.num_views]
    return jax.nn.logsumexp(each, axis=1) - jnp.log(jnp.float32(views.num_views))

  return smoothed


def _inside(place, side, shape):
  """bool[H, W, 1], the pixels of the square at (row, column)."""
  seen = [(jnp.arange(n, dtype=jnp.int32) - at) for n, at in zip(shape[:2], place, strict=True)]
  row, column = ((ahead >= 0) & (ahead < side) for ahead in seen)
  return (row[:, None] & column[None, :])[..., None]


def _places(size, side, locations):
  """int32[P, 2], the squares to choose from."""
  last = np.array(size) - side
  if side > min(size):
    raise ValueError(
      f'`side` must fit in the image of {size[0]} x {size[1]} pixels, got side={side}.'
    )
  if locations is None:
    return np.argwhere(np.ones(last + 1, bool)).astype(np.int32)
  places = np.asarray(locations)
  whole = places.ndim == 2 and places.shape[1] == 2 and np.issubdtype(places.dtype, np.integer)
  if not (whole and len(places) and (places >= 0).all() and (places <= last).all()):
    raise ValueError(
      f'`locations` are first rows 0 .. {last[0]} and columns 0 .. {last[1]} of squares of side '
      f'{side}, int[L, 2], got {places.tolist()}.'
    )
  return places.astype(np.int32)


def _order(key, number, num_locations):
  """int32[L], which places one image tries."""
  everything = jnp.arange(number, dtype=jnp.int32)
  if num_locations is None or num_locations >= number:
    return everything
  return jax.random.permutation(key, everything)[:num_locations]


def _check(side, step_size, num_steps, num_locations, locations):
  if isinstance(side, str) or not 0 <= side < np.inf or side != int(side):
    raise ValueError(f'`side` is a whole number of pixels, 0 or more, got side={side}.')
  if num_steps < 0 or not (is_traced(step_size) or step_size > 0):
    raise ValueError(
      f'`num_steps` must be at least 0 and `step_size` positive, got num_steps={num_steps}, '
      f'step_size={step_size}.'
    )
  if num_locations is not None and (num_locations < 1 or locations is not None):
    raise ValueError(
      f'`num_locations` must be at least 1, and has no meaning beside `locations`, got '
      f'num_locations={num_locations}.'
    )
