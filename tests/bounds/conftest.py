"""Small networks of every step that bounds read, and their truth."""

import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from certjax import layers


def _weights(seed, *shapes):
  rng = np.random.default_rng(seed)
  return [rng.normal(0, 1 / np.sqrt(np.prod(s[:-1]) or 1), s) for s in shapes]


def mlp(activation, seed=0, sizes=(6, 8, 7, 3)):
  """A fully connected network with one activation; its weights travel as arguments."""
  pairs = list(itertools.pairwise(sizes))
  weights = _weights(seed, *pairs)
  biases = [np.random.default_rng(seed + 1).normal(0, 0.3, b) for _, b in pairs]

  return jax.tree_util.Partial(_dense(activation), weights, biases)


@functools.cache
def _dense(activation):
  """One function of an activation, that networks of other weights are no other program."""

  def apply(weights, biases, x):
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
      x = x @ w.astype(x.dtype) + b.astype(x.dtype)[None]
      x = activation(x) if i < len(weights) - 1 else x
    return x

  return apply


def conv_net(pool=None, seed=3):
  """Two convolutions (stride 2, SAME), normalisation, pooling, a residual sum, a dense layer."""
  w1, w2, w3, w4 = _weights(seed, (3, 3, 2, 3), (3, 3, 3, 3), (3, 3, 3, 3), (12, 4))

  def model_fn(x):
    conv = lambda x, w, s: layers.conv_general_dilated(x, w.astype(x.dtype), (s, s), 'SAME')
    x = (x - 0.5) / 0.25
    x = jax.nn.relu(conv(x, w1, 1))
    if pool == 'max':
      x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
    elif pool == 'sum':
      x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID') / 4
    else:
      x = conv(x, w2, 2)
    x = x + jax.nn.relu(conv(x, w3, 1))
    return x.reshape(len(x), -1) @ w4.astype(x.dtype)

  return model_fn


def pairs_net(seed=5):
  """MaxMin, abs, clip, concatenation, a mean, slices and a scan of convolutions."""
  w1, w2, w3 = _weights(seed, (6, 8), (8, 8), (12, 3))
  kernels = np.stack(_weights(seed + 1, (4, 4), (4, 4)))

  def model_fn(x):
    x = x @ w1.astype(x.dtype)
    a, b = jnp.split(x, 2, axis=1)
    x = jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b)], axis=1)
    x = jnp.abs(x @ w2.astype(x.dtype) - 0.1)
    y, _ = lax.scan(lambda c, k: (c @ k, None), x[:, :4], jnp.asarray(kernels, x.dtype))
    x = jnp.concatenate([jnp.clip(x, 0.2, 0.8), y + x.mean(axis=1, keepdims=True)], axis=1)
    return x @ w3.astype(x.dtype)

  return model_fn


NETWORKS = {
  'relu': (mlp(jax.nn.relu), (6,)),
  'softplus': (mlp(jax.nn.softplus), (6,)),
  'tanh': (mlp(jnp.tanh), (6,)),
  'sigmoid': (mlp(jax.nn.sigmoid), (6,)),
  'conv': (conv_net(), (4, 4, 2)),
  'max-pool': (conv_net('max'), (4, 4, 2)),
  'mean-pool': (conv_net('sum'), (4, 4, 2)),
  'pairs': (pairs_net(), (6,)),
}


def points(region, count, seed=0):
  """Points of the region of one image, many of them on its surface: float[count, ...]."""
  rng = np.random.default_rng(seed)
  low, high = np.asarray(region.lower[0]), np.asarray(region.upper[0])
  x = rng.uniform(low, high, (count, *low.shape))
  corners = rng.random(count) < 0.5
  x[corners] = np.where(rng.random((corners.sum(), *low.shape)) < 0.5, low, high)
  if region.norm == 'linf':
    return x
  center, eps = np.asarray(region.center[0]), float(region.eps[0])
  delta = (x - center).reshape(count, -1)
  if region.norm == 'l1':  # Some of them on one or two coordinates alone.
    keep = rng.random(delta.shape) < np.where(rng.random((count, 1)) < 0.5, 2 / delta.shape[1], 1)
    delta = delta * keep
  order = 2 if region.norm == 'l2' else 1
  length = np.linalg.norm(delta, order, axis=1, keepdims=True)
  delta = delta * np.minimum(1, eps / np.maximum(length, 1e-300))
  return center + delta.reshape(x.shape)


@pytest.fixture(scope='session')
def small():
  """`small.networks[name] = (model_fn, shape)`, `small.mlp`, `small.points`."""
  return types.SimpleNamespace(networks=NETWORKS, mlp=mlp, points=points)
