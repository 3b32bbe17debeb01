"""PAT: the attack is Fast-LPA on the network in training, from what it gets right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import models
from certjax.attacks._lpa import fast_lpa
from certjax.models._features import features_of
from certjax.train._pat import pat

MODULE = models.DigitsCNN(10, width=2)
X = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 1)).astype(np.float32)


def test_attacks_what_is_classified_correctly():
  """The same points as Fast-LPA's, without a projection; what is wrong already stays."""

  @jax.jit
  def run(variables, keys, x, y, step):
    model_fn = models.bind(MODULE, variables)
    label = jnp.argmax(model_fn(x), axis=1).astype(jnp.int32)
    y = jnp.where(y < 0, label, (label + 1) % 10)
    perturb = pat(eps=0.2, num_steps=3, warmup_steps=10).perturb
    attack = fast_lpa(None, eps=0.1, num_steps=3, projection='none')
    return perturb(keys, model_fn, x, y, step), attack(keys, features_of(model_fn), x, y)

  rng, keys = np.random.default_rng(1), jax.random.split(jax.random.key(0), 4)
  shapes = jax.eval_shape(MODULE.init, jax.random.key(1), X)
  variables = jax.tree.map(lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape)), shapes)
  found, expected = run(variables, keys, X, np.array([-1, 0, -1, 0], np.int32), np.int32(4))
  np.testing.assert_allclose(found[::2], expected[::2], atol=1e-6)
  assert np.array_equal(found[1::2], X[1::2])
  assert np.abs(found[::2] - X[::2]).max() > 0.02


def test_another_attack_and_bad_arguments():
  made = []
  objective = pat(eps=0.3, num_steps=7, attack=lambda *given: made.append(given))
  assert made == [(0.3, 7)] and objective.perturb is not None
  with pytest.raises(ValueError, match='`eps` must be positive'):
    pat(eps=0.0)
  with pytest.raises(ValueError, match='`num_steps` must be positive'):
    pat(num_steps=0)
