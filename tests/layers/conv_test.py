"""The custom gradients against automatic differentiation, for every stride, padding, dilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.test_util import check_grads

from certjax import parallel
from certjax.layers import _images, conv_general_dilated

pytestmark = pytest.mark.usefixtures('many_programs')

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
CASES = [
  dict(size=(6, 6), kernel=(3, 3), strides=(1, 1), padding='SAME'),
  dict(size=(7, 6), kernel=(3, 2), strides=(2, 1), padding='SAME'),
  dict(size=(8, 9), kernel=(4, 4), strides=(2, 2), padding=((1, 1), (1, 1))),
  dict(size=(9, 8), kernel=(1, 1), strides=(2, 2), padding='VALID'),
  dict(size=(8, 8), kernel=(5, 5), strides=(3, 2), padding='VALID'),
  dict(size=(9, 10), kernel=(1, 2), strides=(3, 4), padding=((2, 0), (3, 1))),
  dict(size=(9, 8), kernel=(4, 6), strides=(2, 3), padding=((3, 0), (0, 2))),
  dict(size=(8, 7), kernel=(2, 1), strides=(2, 1), padding=((-1, 2), (-1, 3))),
  dict(size=(9, 9), kernel=(3, 3), strides=(1, 2), padding='SAME', rhs_dilation=(2, 1)),
  dict(size=(5, 5), kernel=(3, 3), strides=(1, 1), padding=((2, 0), (0, 3))),
  dict(size=(4, 5), kernel=(3, 2), strides=(1, 1), padding=((1, 2), (0, -1)), lhs_dilation=(2, 3)),
  dict(size=(4, 4), kernel=(3, 3), strides=(2, 1), padding=((1, 0), (2, 1)), lhs_dilation=(3, 1),
       rhs_dilation=(1, 2)),
]  # fmt: skip


def _operands(case, dtype=np.float64):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, *case['size'], 3)).astype(dtype)
  w = 0.1 * rng.standard_normal((*case['kernel'], 3, 4)).astype(dtype)
  return x, w


def _arguments(case):
  dilations = case.get('lhs_dilation'), case.get('rhs_dilation')
  return case['strides'], case['padding'], *dilations, DIMENSIONS


@pytest.mark.parametrize('case', CASES)
def test_value_and_gradients_equal_automatic_differentiation(case):
  with parallel.x64():
    x, w = map(jnp.asarray, _operands(case))
    ours = lambda x, w: jnp.sin(conv_general_dilated(x, w, *_arguments(case)))
    jaxs = lambda x, w: jnp.sin(lax.conv_general_dilated(x, w, *_arguments(case)))
    np.testing.assert_allclose(ours(x, w), jaxs(x, w), rtol=1e-12, atol=1e-14)
    for a, b in zip(
      jax.vjp(ours, x, w)[1](jnp.ones_like(ours(x, w))),
      jax.vjp(jaxs, x, w)[1](jnp.ones_like(ours(x, w))),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    check_grads(ours, (x, w), order=2, modes=('rev',), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('case', CASES[:3])
def test_vmap_over_images_and_over_kernels(case):
  x, w = map(jnp.asarray, _operands(case, np.float32))
  loss = lambda x, w: jnp.sum(jnp.sin(conv_general_dilated(x[None], w, *_arguments(case))))
  plain = lambda x, w: jnp.sum(jnp.sin(lax.conv_general_dilated(x[None], w, *_arguments(case))))
  batch = jax.vmap(jax.grad(loss, (0, 1)), (0, None))(x, w)
  oracle = jax.vmap(jax.grad(plain, (0, 1)), (0, None))(x, w)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), batch, oracle)


def test_groups_fall_through_to_jax():
  x, w = jnp.ones((1, 4, 4, 4)), jnp.ones((3, 3, 2, 4))
  ours = conv_general_dilated(x, w, (1, 1), 'SAME', (1, 1), None, DIMENSIONS, 2)
  np.testing.assert_array_equal(
    ours, lax.conv_general_dilated(x, w, (1, 1), 'SAME', (1, 1), None, DIMENSIONS, 2)
  )


def test_flax_layer_takes_it():
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  plain = nn.Conv(5, (3, 3), strides=2)
  ours = nn.Conv(5, (3, 3), strides=2, conv_general_dilated=conv_general_dilated)
  variables = plain.init(jax.random.key(1), x)
  value = lambda layer, v: jnp.sum(jnp.sin(layer.apply(v, x)))
  a, b = (jax.grad(lambda v, layer=layer: value(layer, v))(variables) for layer in (plain, ours))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), a, b)


@pytest.mark.parametrize(
  'height, width, size', [(5, 6, (3, 5)), (32, 33, (3, 5)), (40, 32, (1, 1)), (32, 32, (7, 3))]
)
def test_circular_convolution_is_a_sum_of_rolled_images(height, width, size):
  """Small images and large ones go different ways (`_images._LARGE`)."""
  rng = np.random.default_rng(0)
  x, kernel = rng.normal(size=(2, height, width, 3)), rng.normal(size=(*size, 3, 4))
  expected = sum(
    np.roll(x, (size[0] // 2 - i, size[1] // 2 - j), (1, 2)) @ kernel[i, j]
    for i, j in np.ndindex(*size)
  )
  with parallel.x64():
    found = _images.convolve(jnp.asarray(x), jnp.asarray(kernel), 'circular')
    np.testing.assert_allclose(found, expected, atol=1e-12)
    check = lambda x, k: jnp.sum(_images.convolve(x, k, 'circular')[:, ::5, ::5] ** 2)
    gradient = jax.grad(check, (0, 1))(jnp.asarray(x), jnp.asarray(kernel))
    for part, leaf in zip(gradient, (x, kernel), strict=True):
      direction = rng.normal(size=leaf.shape)
      moved = [
        check(*(v + t * direction if v is leaf else v for v in (x, kernel))) for t in (-1e-6, 1e-6)
      ]
      slope = float((moved[1] - moved[0]) / 2e-6)
      assert abs(slope - float(jnp.vdot(part, direction))) < 1e-6 * (1 + abs(slope))
