"""The traced curvature: equal to that of the matrices, below a proof, differentiable."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax import lax

from certjax import bounds, layers, parallel

FUNCTIONS = {'softplus': jax.nn.softplus, 'sigmoid': jax.nn.sigmoid, 'tanh': jnp.tanh}


def network(weights, activation, mean=0.0, std=1.0):
  def model_fn(x):
    x = (x - mean) / std
    for i, weight in enumerate(weights):
      x = x @ jnp.asarray(weight, x.dtype).T
      x = FUNCTIONS[activation](x) if i < len(weights) - 1 else x
    return x

  return model_fn


def random_weights(seed, sizes):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=(b, a)) for a, b in zip(sizes, sizes[1:], strict=False)]


@pytest.mark.parametrize(
  'sizes, activation', [((6, 9, 4), 'softplus'), ((6, 9, 7, 5, 4), 'sigmoid')], ids=str
)
def test_equal_to_that_of_the_matrices(sizes, activation):
  """With a normalisation, which belongs to the first of them; never above the proof."""
  weights = random_weights(0, sizes)
  with parallel.x64():
    model_fn = network(weights, activation, mean=0.5, std=0.25)
    found, few = map(np.asarray, jax.jit(lambda: [
      bounds.estimate_curvature(model_fn, jnp.zeros(6), num_steps=steps) for steps in (300, 1)
    ])())  # fmt: skip
  proved = bounds.deep_curvature([weights[0] / 0.25, *weights[1:]], activation=activation)
  np.testing.assert_allclose(found, proved, rtol=1e-9)
  assert (found <= proved).all() and (np.diag(found) == 0).all()
  assert (few <= found).all() and (few < found).any()


def test_of_a_convolution():
  """Its matrix by its columns."""
  rng = np.random.default_rng(1)
  kernel, last = rng.normal(size=(3, 3, 1, 2)), rng.normal(size=(32, 3))

  def conv(x):
    return layers.conv_general_dilated(x, jnp.asarray(kernel, x.dtype), (1, 1), 'SAME').reshape(
      len(x), -1
    )

  def model_fn(x):
    return jnp.tanh(conv(x)) @ jnp.asarray(last, x.dtype)

  with parallel.x64():
    estimate = lambda: bounds.estimate_curvature(model_fn, jnp.zeros((4, 4, 1)), num_steps=300)
    found = jax.jit(estimate)()
    first = np.asarray(conv(jnp.eye(16).reshape(16, 4, 4, 1)).T)
  np.testing.assert_allclose(
    found, bounds.deep_curvature([first, last.T], activation='tanh'), rtol=1e-6
  )


def test_gradient():
  """Against finite differences, where the power iteration has converged: three layers."""
  weights = random_weights(2, (3, 4, 4, 2))
  with parallel.x64():
    value = jax.jit(
      lambda w: bounds.estimate_curvature(network(w, 'sigmoid'), jnp.zeros(3), num_steps=300)[0, 1]
    )
    jax.test_util.check_grads(value, ([jnp.asarray(w) for w in weights],), 1, modes=['rev'])


@pytest.mark.parametrize(
  'model_fn, said',
  [
    (lambda x: jax.nn.relu(x) @ jnp.ones((3, 2)), "`model_fn` must be smooth, .* 'relu'"),
    (lambda x: (x + jnp.tanh(x)) @ jnp.ones((3, 2)), '`model_fn` must be a chain'),
    (lambda x: x @ jnp.ones((3, 2)), '`model_fn` must map .* by an activation'),
    (lambda x: lax.exp(x), "no bound is known for the primitive 'exp'"),
  ],
)
def test_what_it_cannot_read(model_fn, said):
  with pytest.raises(ValueError, match=said):
    bounds.estimate_curvature(model_fn, jnp.zeros(3))
