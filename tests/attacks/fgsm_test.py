"""FGSM: protocol in every norm, the closed form on a linear model, a step of its own length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, testing, threats

pytestmark = pytest.mark.usefixtures('many_programs')

W = np.random.default_rng(0).normal(size=12).astype(np.float32)
DUAL = {'linf': np.abs(W).sum(), 'l2': np.linalg.norm(W), 'l1': np.abs(W).max()}


def linear(x):
  score = x.reshape(len(x), -1) @ W
  return jnp.stack([score, jnp.zeros(len(x))], axis=1)


def batch(size=4):
  x = np.random.default_rng(1).uniform(0.3, 0.7, (size, 2, 2, 3)).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(np.argmax(linear(x), axis=1).astype(np.int32))


@pytest.mark.parametrize('name, random_start', [('l2', False), ('l1', True)])
def test_protocol(name, random_start):
  make = lambda threat: attacks.fgsm(threat, random_start=random_start)
  testing.check_attack(make, getattr(threats, name), linear, *batch())


@pytest.mark.parametrize('name', DUAL)
def test_linear_optimum(name):
  """The score falls by eps times the dual norm of w; a shorter step by less."""
  x, y = batch()
  threat = getattr(threats, name)(0.2)
  for step_size in (None, 0.05):
    x_adv = attacks.fgsm(threat, step_size=step_size)(jax.random.key(0), linear, x, y)
    drop = np.abs(np.asarray(linear(x)[:, 0] - linear(x_adv)[:, 0]))
    np.testing.assert_allclose(drop, (step_size or 0.2) * DUAL[name], rtol=1e-5)


def test_eps_may_be_traced():
  x, y = batch()
  attack = lambda eps: attacks.fgsm(threats.linf(eps))(jax.random.key(0), linear, x, y)
  np.testing.assert_allclose(jax.jit(attack)(0.1), attack(0.1), atol=1e-6)


def test_bad_step_size():
  with pytest.raises(ValueError, match='`step_size` positive, got num_steps=1, step_size=0'):
    attacks.fgsm(threats.l2(0.1), step_size=0.0)
