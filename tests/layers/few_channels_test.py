"""Convolutions of few channels: the way each shape takes, and the same sums whichever it is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from certjax import bounds, models, parallel
from certjax.layers import _few_channels, conv_general_dilated
from certjax.layers._conv import _Options

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
WAYS = {  # (kernel, strides, padding, channels, features) -> the way on CPU.
  ((3, 3), (1, 1), ((1, 1), (1, 1)), 1, 16): _few_channels.by_taps,
  ((4, 2), (2, 3), ((1, 2), (0, 1)), 2, 5): _few_channels.by_taps,
  ((1, 1), (1, 2), ((0, 0), (-1, 2)), 3, 7): _few_channels.by_taps,
  ((3, 2), (1, 1), ((1, 1), (2, -1)), 9, 4): _few_channels.by_shifts,
  ((5, 5), (1, 1), ((4, 0), (-2, 2)), 8, 1): _few_channels.by_shifts,
  ((4, 4), (2, 2), ((1, 1), (1, 1)), 3, 6): _few_channels.by_blocks,
  ((3, 3), (1, 1), ((1, 1), (1, 1)), 7, 4): None,
  ((3, 3), (2, 1), ((1, 1), (1, 1)), 8, 4): None,
  ((5, 5), (1, 1), ((2, 2), (2, 2)), 3, 8): None,
}


@pytest.mark.parametrize(('case', 'way'), WAYS.items(), ids=[str(case) for case in WAYS])
def test_each_way_gives_the_sums_of_the_primitive(case, way):
  kernel, strides, padding, channels, features = case
  rng = np.random.default_rng(0)
  with parallel.x64():
    x = jnp.asarray(rng.normal(size=(2, 8, 9, channels)))
    w = jnp.asarray(rng.normal(size=(*kernel, channels, features)))
    options = _Options(strides, padding, (1, 1), (1, 1), None, None)
    assert jax.default_backend() != 'cpu' or _few_channels.route(options, x, w) is way
    expected = lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=DIMENSIONS)
    found = conv_general_dilated(x, w, strides, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_pinned_precision_and_low_precision_stay_the_primitive():
  x, w = jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 16))
  options = _Options((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), None, None)
  assert _few_channels.route(options, x, w) is not None
  assert _few_channels.route(options._replace(precision=lax.Precision.HIGHEST), x, w) is None
  assert _few_channels.route(options._replace(w_dilation=(2, 1)), x, w) is None
  assert _few_channels.route(options, x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)) is None
  with jax.default_matmul_precision('highest'):
    assert _few_channels.route(options, x, w) is None


def test_bounds_see_a_convolution_after_a_model_was_compiled():
  """They trace anew: locality of linear bounds hangs on it."""
  module = models.build('mnist-cnn', num_classes=3)
  x = jnp.full((1, 8, 8, 1), 0.5)
  model_fn = jax.jit(models.bind(module, module.init(jax.random.key(0), x)))
  model_fn(x)
  nodes = bounds._network.trace(model_fn, x[0]).nodes
  seen = [node.local.kernel.shape for node in nodes if hasattr(node.local, 'kernel')]
  assert seen == [(4, 4, 1, 16), (4, 4, 16, 32)]


def test_rows_do_not_depend_on_their_neighbours():
  """A batch is a batch of images: what stands beside one changes no bit of it."""
  rng = np.random.default_rng(1)
  for case in itertools.islice(WAYS, 5):
    kernel, strides, padding, channels, features = case
    x = jnp.asarray(rng.normal(size=(4, 8, 9, channels)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(*kernel, channels, features)), jnp.float32)
    run = jax.jit(lambda x, w, s=strides, p=padding: conv_general_dilated(x, w, s, p))
    turned = run(x[::-1], w)[::-1]
    np.testing.assert_array_equal(run(x, w), turned)
