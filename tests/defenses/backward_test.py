"""BPDA: the toy case to the digit, values bit for bit, gradients of another function, its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import defenses


def test_toy_case():
  """f(x) = w . round(4 x) / 4: the gradient is 0, BPDA's is w, and one sign step lowers f."""
  w, x = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.6])
  rounded = lambda x: jnp.round(4 * x) / 4
  f = lambda transform: lambda x: jnp.sum(w * transform(x))
  value, slope = jax.value_and_grad(f(defenses.bpda(rounded)))(x)
  np.testing.assert_array_equal(slope, w)
  assert not jax.grad(f(rounded))(x).any() and float(value) == -0.75
  assert float(f(rounded)(x + 0.1 * jnp.sign(slope))) == -0.5


def test_values_and_gradients():
  """Any shape; under jit, vmap, forward mode; closures over traced arrays."""
  x = jnp.linspace(0.05, 0.95, 6).reshape(2, 3)

  def loss(scale, x):
    function = lambda x: jnp.concatenate([jnp.floor(scale * x), x > 0.5], axis=-1, dtype=x.dtype)
    backward = lambda x: jnp.concatenate([x**2, 3 * x], axis=-1)
    values = jax.vmap(defenses.bpda(function, backward))(x)
    return jnp.sum(values), values

  (_, values), slope = jax.jit(jax.value_and_grad(loss, 1, has_aux=True))(7.0, x)
  expected = np.concatenate([np.floor(np.float32(7) * x), x > 0.5], axis=-1)
  np.testing.assert_array_equal(values, expected)
  np.testing.assert_allclose(slope, 2 * x + 3, rtol=1e-6)
  _, forward = jax.jvp(lambda x: loss(7.0, x)[0], (x,), (jnp.ones_like(x),))
  np.testing.assert_allclose(forward, jnp.sum(2 * x + 3), rtol=1e-6)


def test_straight_through_keeps_the_bits():
  """x + stop_gradient(f(x) - x) would not: 1/3 from 1e4 rounds."""
  x = jnp.array([1e4, 0.1])
  third = lambda x: jnp.full_like(x, 1 / 3)
  assert np.array_equal(defenses.bpda(third)(x), third(x))


def test_shapes_must_agree():
  with pytest.raises(ValueError, match=r'`function`: \(8,\), but the identity gives \(2,\)'):
    defenses.bpda(defenses.thermometer(levels=4))(jnp.zeros(2))
  with pytest.raises(ValueError, match='but `backward` gives'):
    defenses.bpda(jnp.sum, lambda x: x)(jnp.zeros(2))
