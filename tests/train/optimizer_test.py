"""Learning rates and optimisers by name, as the papers set them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from certjax import train


def test_constant_and_warmup():
  made = train.schedule('constant', peak=0.5, num_steps=100, warmup_steps=10)
  rates = [float(made(step)) for step in (0, 5, 10, 99)]
  np.testing.assert_allclose(rates, [0.0, 0.25, 0.5, 0.5])


def test_cosine_ends_at_zero():
  made = train.schedule('cosine', peak=0.5, num_steps=110, warmup_steps=10)
  rates = [float(made(step)) for step in (10, 60, 110)]
  np.testing.assert_allclose(rates, [0.5, 0.25, 0.0], atol=1e-7)


def test_step():
  made = train.schedule('step', peak=1.0, num_steps=90, decay_every=30, decay=0.1)
  rates = [float(made(step)) for step in (0, 29, 30, 59, 60, 89)]
  np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)
  with pytest.raises(ValueError, match='needs `decay_every`'):
    train.schedule('step', peak=1.0, num_steps=90)


def test_unknown_names():
  with pytest.raises(ValueError, match="one of constant, cosine, step, .*multistep; got 'poly'"):
    train.schedule('poly', peak=1.0, num_steps=1)
  with pytest.raises(ValueError, match="one of sgd, nesterov, adam; got 'lamb'"):
    train.optimizer('lamb', 0.1)


def apply(tx, gradients, weight):
  state = tx.init(weight)
  for gradient in gradients:
    update, state = tx.update(jnp.float32(gradient), state, weight)
    weight = optax.apply_updates(weight, update)
  return float(weight)


def test_sgd_is_that_of_pytorch():
  """v = 0.9 v + (g + decay w); w = w - rate v, and Nesterov's look-ahead."""
  rate, decay, gradients = 0.1, 0.5, (1.0, -2.0, 0.25)
  for name in ('sgd', 'nesterov'):
    w, v = 2.0, 0.0
    for gradient in gradients:
      g = gradient + decay * w
      v = 0.9 * v + g
      w -= rate * (g + 0.9 * v if name == 'nesterov' else v)
    made = apply(train.optimizer(name, rate, weight_decay=decay), gradients, jnp.float32(2.0))
    assert made == pytest.approx(w, rel=1e-6)


def test_multistep_decays_at_half_and_three_quarters():
  values = train.schedule('multistep', peak=0.1, num_steps=200, warmup_steps=20)
  found = [float(values(step)) for step in (10, 20, 99, 101, 149, 151, 199)]
  np.testing.assert_allclose(found, [0.05, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_triangular_and_exponential():
  """Cayley's published schedule, and BCOP's factor .96235 an epoch: a tenth in 60 epochs."""
  made = train.schedule('triangular', peak=0.1, num_steps=100)
  found = [float(made(step)) for step in (0, 20, 40, 60, 80, 90, 100)]
  np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.0525, 0.005, 0.0025, 0], atol=1e-8)
  made = train.schedule('exponential', peak=1.0, num_steps=200, decay_every=60)
  found = [float(made(step)) for step in (0, 1, 60, 120)]
  np.testing.assert_allclose(found, [1, 0.96235, 0.1, 0.01], rtol=1e-4)
  with pytest.raises(ValueError, match='"exponential" needs `decay_every`'):
    train.schedule('exponential', peak=1.0, num_steps=90)


def test_cyclic_is_one_triangle():
  """Wong et al. 2020: from 0 to the peak in half of the steps, and back."""
  made = train.schedule('cyclic', peak=0.2, num_steps=100)
  found = [float(made(step)) for step in (0, 25, 50, 75, 100)]
  np.testing.assert_allclose(found, [0, 0.1, 0.2, 0.1, 0], atol=1e-7)
