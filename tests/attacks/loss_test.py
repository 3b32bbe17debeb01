"""Losses: reference values, their scale, a sort by hand, targets, and too few classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks

LOGITS = jnp.array([[2, 1, 0.5, -1, 3], [4, 0, 1, 2, -3]], jnp.float32)


def test_reference_values():
  y = jnp.array([0, 0], jnp.int32)
  values = lambda loss: np.asarray(jax.vmap(loss)(LOGITS, y))
  np.testing.assert_allclose(values(attacks.margin), [1, -2], atol=1e-6)
  np.testing.assert_allclose(values(attacks.cross_entropy), [1.4722607, 0.1859399], atol=1e-6)
  np.testing.assert_allclose(values(attacks.dlr), [0.5, -2 / 3], atol=1e-6)


def test_reference_values_of_targets():
  y, target = jnp.array([0, 0], jnp.int32), jnp.array([1, 3], jnp.int32)
  values = lambda loss: np.asarray(jax.vmap(loss)(LOGITS, y, target))
  np.testing.assert_allclose(values(attacks.dlr_targeted), [-4 / 9, -4 / 7], atol=1e-6)
  np.testing.assert_allclose(values(attacks.margin_targeted), [-1, -2], atol=1e-6)
  z = np.float64(LOGITS)[[0, 1], [1, 3]]
  softmax = np.exp(z) / np.exp(np.float64(LOGITS)).sum(axis=1)
  np.testing.assert_allclose(values(attacks.cross_entropy_targeted), np.log(softmax), atol=1e-6)


def test_ratios_ignore_scale_and_shift():
  """Where the cross-entropy has no gradient left, the ratios keep theirs."""
  logits, y, target = LOGITS[1], jnp.int32(0), jnp.int32(3)
  for loss in (attacks.dlr, lambda z, y: attacks.dlr_targeted(z, y, target)):
    np.testing.assert_allclose(loss(logits, y), loss(64 * logits - 3, y), rtol=1e-5)
    assert float(jnp.abs(jax.grad(loss)(64 * logits, y)).max()) > 1e-3
  assert float(jnp.abs(jax.grad(attacks.cross_entropy)(64 * logits, y)).max()) == 0


def test_equal_logits_are_finite():
  for loss in (attacks.dlr, lambda z, y: attacks.dlr_targeted(z, y, 1)):
    value, gradient = jax.value_and_grad(loss)(jnp.zeros(5), 0)
    assert float(value) == 0 and np.isfinite(gradient).all()


def test_too_few_classes():
  with pytest.raises(ValueError, match='`dlr` compares 3 logits.* got 2 classes: use attacks.marg'):
    attacks.dlr(jnp.zeros(2), 0)
  with pytest.raises(ValueError, match='`dlr_targeted` compares 4 .* got 3 classes: use'):
    attacks.dlr_targeted(jnp.zeros(3), 0, 1)
