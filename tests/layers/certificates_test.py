"""What a certificate must not depend on: batch order, and whether filters are cached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from certjax import certify, layers

X = np.random.default_rng(0).uniform(0, 1, (16, 4, 4, 2)).astype(np.float32)
KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def network():
  """(modules, variables): SOC - MaxMin - SOC down to one pixel, and rows of norm 1."""
  body = nn.Sequential([layers.SOC(4), layers.MaxMin(), layers.SOC(8, strides=4)])
  head = layers.NormalizedLinear(5)
  below = jax.jit(body.init)(KEY, X)
  return (body, head), (below, jax.jit(head.init)(KEY, jnp.zeros((1, 8))))


def radii(network, x, *, cached):
  """float64[B]: labels and radii by the rows of the last layer."""
  modules, variables = network
  if cached:
    body, head = (layers.materialize(*pair) for pair in zip(modules, variables, strict=True))
  else:
    body, head = (
      jax.jit(lambda x, m=m, v=v: m.apply(v, x)) for m, v in zip(modules, variables, strict=True)
    )
  kernel = np.asarray(variables[1]['params']['kernel'], np.float64)
  rows = (kernel / np.linalg.norm(kernel, axis=0)).T
  bound = layers.lipschitz_upper(modules[0], variables[0])
  logits = np.asarray(head(body(x).reshape(len(x), -1)), np.float64)
  return certify.margin(logits, lipschitz=bound, last_layer=rows)


def test_cached_filters_leave_certificates_as_they_are(network):
  iterated, cached = (radii(network, X, cached=cached) for cached in (False, True))
  np.testing.assert_array_equal(iterated.label, cached.label)
  np.testing.assert_allclose(iterated.radius, cached.radius, atol=1e-5)
  assert iterated.radius.min() > 1e-4 and iterated.radius.max() > 0.05


def test_batch_order_leaves_certificates_as_they_are(network):
  order = np.random.default_rng(1).permutation(len(X))
  whole, permuted = (radii(network, x, cached=False) for x in (X, X[order]))
  np.testing.assert_array_equal(whole.label[order], permuted.label)
  np.testing.assert_allclose(whole.radius[order], permuted.radius, atol=1e-6)
