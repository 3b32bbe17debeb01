r"""The curvature bound of Singla & Feizi for training: of any chain of affine maps, differentiable.

`deep_curvature` reads matrices and pays for rounding. This is the same number of a `model_fn`, whose
affine maps are known by what they do: the norm |W_I|_2 comes from power iteration (a lower estimate, so
no proof), sums of |W_I| from the steps' own absolute values.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from certjax.bounds._curvature import SMOOTH_ACTIVATIONS
from certjax.bounds._network import trace

_NAMES = {'logistic': 'sigmoid', 'softplus': 'softplus', 'tanh': 'tanh'}  # Of nodes' kinds.


class _Piece(NamedTuple):
  """Affine steps in a row, and the activation after them (None at the end)."""

  steps: list
  shape: tuple  # Of its input.
  activation: object


def estimate_curvature(model_fn, image, *, num_steps=30) -> jax.Array:
  r"""How far every f_y - f_j may bend, of a chain of affine maps and smooth activations.

    K_yj = sum_I max |s_I''| (r^(I))^2 max_i S^(I)_i        (see `deep_curvature`)

  It estimates, for training and attacks: norms by `num_steps` of power iteration, from one fixed
  start. Its gradient is that of u^T W v with the singular vectors held fixed.

  Args:
    model_fn: `x[1, ...] -> logits[1, K]`; its weights may be tracers.
    image: float[...], for shape and dtype.
    num_steps: of the power iteration.

  Returns:
    float[K, K], symmetric, 0 on the diagonal.

  Raises:
    ValueError: for a step that bounds do not know, an activation that is not smooth, or a network that
      is no chain (residual sums).

  Example:
    >>> last = jnp.array([[0.0, 4.0]])
    >>> model_fn = lambda x: jax.nn.softplus(x @ jnp.array([[1.0], [2.0]])) @ last
    >>> estimate_curvature(model_fn, jnp.zeros(2)).round(4).tolist()
    [[0.0, 5.0], [5.0, 0.0]]

  References:
    Singla & Feizi 2020 (arXiv:2006.00731), Theorem 4.
  """
  with jax.default_matmul_precision('highest'):
    pieces = _pieces(model_fn, image)
    last = _rows(pieces[-1], image.dtype)
    sensitivity = jnp.abs(last[:, None] - last[None])
    num_classes, total = len(last), 0.0
    reaches = [_norm(piece, image.dtype, num_steps) for piece in pieces[:-1]]
    for index in range(len(pieces) - 2, -1, -1):
      bounds = SMOOTH_ACTIVATIONS[pieces[index].activation]
      slopes = [SMOOTH_ACTIVATIONS[piece.activation].slope for piece in pieces[:index]]
      reach = math.prod(reaches[: index + 1]) * math.prod(slopes)
      width = sensitivity.reshape(num_classes, num_classes, -1)
      total += max(bounds.high, -bounds.low) * reach**2 * jnp.max(width, axis=-1)
      if index:
        sensitivity = bounds.slope * _pulled(pieces[index], sensitivity)
    return jnp.asarray(total)


def _pieces(model_fn, image):
  """The network as `_Piece`s, the first from the image."""
  network = trace(model_fn, image)
  found, steps, shape = [], [], network.nodes[0].shape
  for number, node in enumerate(network.nodes[1:], 1):
    if node.inputs != (number - 1,):
      raise ValueError(
        f'`model_fn` must be a chain, but step {number} ({node.kind}) reads the steps {node.inputs}.'
      )
    if node.kind == 'affine':
      steps.append(node)
      continue
    if node.kind not in _NAMES:
      raise ValueError(
        f'`model_fn` must be smooth, with {", ".join(SMOOTH_ACTIVATIONS)} between its affine maps; '
        f'step {number} is {node.kind!r}.'
      )
    found.append(_Piece(steps, shape, _NAMES[node.kind]))
    steps, shape = [], node.shape
  if network.output is None or not found:
    raise ValueError('`model_fn` must map x[1, ...] to logits by an activation and affine maps.')
  return [*found, _Piece(steps, shape, None)]


def _composed(piece, spread=False):
  """Its maps one after the other, or what each spreads."""
  each = [node.spread if spread else node.apply for node in piece.steps]
  return lambda x: functools.reduce(lambda value, step: step(value), each, x)


def _norm(piece, dtype, num_steps):
  """|W|_2 by power iteration."""
  apply = _composed(piece)
  offset, pull = jax.vjp(apply, jnp.zeros(piece.shape, dtype))
  held, unit = lax.stop_gradient, lambda v: v / jnp.maximum(jnp.linalg.norm(v), 1e-30)

  def step(_, v):
    (back,) = pull(held(apply(v) - offset))
    return held(unit(back))

  start = jax.random.normal(jax.random.key(0), piece.shape, dtype)
  v = lax.fori_loop(0, num_steps, step, unit(start))
  image = apply(held(v)) - offset
  square = jnp.sum(image**2)
  positive = square > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def _rows(piece, dtype):
  """W of the last maps, float[K, ...] of its input's shape."""
  apply = _composed(piece)
  offset, pull = jax.vjp(apply, jnp.zeros(piece.shape, dtype))
  eye = jnp.eye(offset.size, dtype=dtype).reshape(offset.size, *offset.shape)
  return jax.vmap(lambda row: pull(row)[0])(eye)


def _pulled(piece, rows):
  """rows[K, K, ...] times |W|, each map's absolute values in turn."""
  _, pull = jax.vjp(_composed(piece, spread=True), jnp.zeros(piece.shape, rows.dtype))
  return jax.vmap(jax.vmap(lambda row: pull(row)[0]))(rows)
