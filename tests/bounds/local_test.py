"""Windows against whole rows: the same bounds, by another road."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import bounds, parallel
from certjax.bounds import _crown, _local
from certjax.bounds._interval import propagate
from certjax.bounds._network import trace

pytestmark = pytest.mark.usefixtures('many_programs')
SHAPE = (9, 8, 2)


def _weights(*shape, seed):
  return np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


def _convolution(x, kernel, strides, padding):
  return jax.lax.conv_general_dilated(
    x, jnp.asarray(kernel), strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _channels(*values):
  return jnp.array(values).reshape(1, 1, 1, -1)


def model_fn(x):
  """Normalisation, two convolutions of unlike strides and padding, and a dense layer."""
  x = (x - _channels(0.4, 0.5)) / _channels(0.5, 0.25)
  x = _convolution(x, _weights(3, 2, 2, 3, seed=0), (2, 1), ((1, 1), (0, 1)))
  x = jax.nn.relu(x + _channels(0.1, -0.2, 0.05))
  x = _convolution(x, _weights(2, 3, 3, 4, seed=1), (1, 2), 'SAME')
  x = jax.nn.relu(-x + 0.1)
  return x.reshape(1, -1) @ jnp.asarray(_weights(80, 3, seed=2))


def _without(monkeypatch):
  monkeypatch.setattr(_local, 'applies', lambda network, number: False)


def _region(norm):
  x = np.random.default_rng(3).uniform(size=(2, *SHAPE))
  return bounds.ball(jnp.asarray(x), 0.05 if norm == 'linf' else 0.5, norm)


@pytest.mark.parametrize(('norm', 'outward'), (('linf', True), ('l2', True), ('l1', False)))
def test_bounds_are_those_of_whole_rows(norm, outward, monkeypatch):
  with parallel.x64():
    run = lambda: jax.jit(functools.partial(bounds.crown, model_fn, outward=outward, upper=False))(
      _region(norm)
    )
    local = run()
    _without(monkeypatch)
    dense = run()
  np.testing.assert_allclose(local[0], dense[0], rtol=0, atol=1e-12)


def test_every_neuron_equals_its_row_and_chunks_change_nothing():
  """Each inner value of the second convolution, against one dense row; with rounding paid for."""
  with parallel.x64():
    image = jax.tree.map(lambda leaf: leaf[0], _region('linf'))
    network = trace(model_fn, image.lower)
    target = max(n for n, node in enumerate(network.nodes) if isinstance(node.local, tuple))
    assert _local.applies(network, target)

    @jax.jit
    def found(image):
      boxes = propagate(network, image)
      relaxed = _crown.relaxations(network, boxes, 'adaptive')
      whole, chunks = (
        _local.neuron_bounds(network, image, boxes, target, relaxed, outward=True, chunk=chunk)
        for chunk in (None, 41)
      )
      shape = whole[0].shape
      rows = jnp.eye(whole[0].size).reshape(-1, *shape)
      both = jnp.concatenate([rows, -rows])
      dense = _crown.backward(network, image, boxes, target, both, relaxed, outward=True)
      return whole, chunks, dense

    (lower, upper), chunks, dense = jax.tree.map(np.asarray, found(image))
    size = lower.size
    np.testing.assert_allclose(lower.ravel(), dense[:size], rtol=0, atol=1e-13)
    np.testing.assert_allclose(upper.ravel(), -dense[size:], rtol=0, atol=1e-13)
    assert np.all(dense[:size] < -dense[size:])
    for ours, chunked in zip((lower, upper), chunks, strict=True):
      np.testing.assert_allclose(ours, chunked, rtol=0, atol=1e-15)


def test_where_windows_do_not_apply():
  """Sums of two branches, maxima and dense layers take whole rows."""
  kernel = _weights(3, 3, 2, 2, seed=0)
  convolve = lambda x: _convolution(x, kernel, (1, 1), 'SAME')
  cases = {
    'chain': (lambda x: convolve(jax.nn.relu(convolve(x))), True),
    'residual': (lambda x: convolve(jax.nn.relu(x + convolve(x))), False),
    'wide': (lambda x: functools.reduce(lambda x, _: convolve(jax.nn.relu(x)), range(5), x), False),
    'mixed': (lambda x: convolve(x.transpose(0, 2, 1, 3)), False),
  }
  for name, (inner, applies) in cases.items():
    network = trace(inner, jnp.zeros(SHAPE))
    assert _local.applies(network, network.output) == applies, name
