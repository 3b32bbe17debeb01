"""Certificates from bounds: closed forms, attacks inside, rounding, and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, bounds, models, threats
from certjax.certify import ABSTAIN

DUAL = {'linf': 1, 'l2': 2, 'l1': np.inf}


def test_margins():
  spec = np.asarray(bounds.margins(np.array([2, 0]), 3))
  np.testing.assert_array_equal(spec[0], [[-1, 0, 1], [0, -1, 1]])
  np.testing.assert_array_equal(spec[1], [[1, -1, 0], [1, 0, -1]])


@pytest.mark.parametrize('norm', DUAL)
@pytest.mark.parametrize('bound', [bounds.interval, bounds.crown])
def test_a_linear_classifier_has_its_distance(norm, bound):
  """|w . x + b| / ||w||_* is exact; verified just below, never just above."""
  rng = np.random.default_rng(0)
  w, x = rng.normal(0, 1, 5), rng.uniform(0.3, 0.7, (20, 5))
  model_fn = lambda x: jnp.stack([x @ w, 0.02 + 0 * x[:, 0]], axis=1)
  distance = np.abs(x @ w - 0.02) / np.linalg.norm(w, DUAL[norm])
  proof = bounds.largest(model_fn, x, max_eps=2.0, norm=norm, clip=None, bound=bound, batch=8)
  assert (proof.radius <= distance).all()
  np.testing.assert_allclose(proof.radius, np.minimum(distance, 2.0), atol=3e-6)
  np.testing.assert_array_equal(proof.label, (x @ w < 0.02).astype(int))
  for i in range(4):
    near = bounds.verify(model_fn, x[i : i + 1], distance[i] * (1 - 1e-9), norm=norm, clip=None)
    beyond = bounds.verify(model_fn, x[i : i + 1], distance[i] * (1 + 1e-12), norm=norm, clip=None)
    assert near.label[0] == proof.label[i] and near.radius[0] > 0
    assert beyond.label[0] == ABSTAIN and beyond.radius[0] == 0


@pytest.mark.parametrize('norm, eps', [('linf', 0.03), ('l2', 0.08)])
def test_no_attack_breaks_a_verified_image(norm, eps, small):
  model_fn, shape = small.networks['conv']
  x = np.random.default_rng(1).uniform(0, 1, (64, *shape)).astype(np.float32)
  proof = bounds.verify(model_fn, x, eps, norm=norm)
  proved = proof.label != ABSTAIN
  assert 5 < proved.sum() < 64
  attack = attacks.pgd(getattr(threats, norm)(eps), step_size=eps / 4, num_steps=40)
  x_adv = attack(jax.random.key(0), model_fn, x, np.asarray(model_fn(x)).argmax(axis=1))
  after = np.asarray(model_fn(x_adv)).argmax(axis=1)
  np.testing.assert_array_equal(after[proved], proof.label[proved])
  assert (after != np.asarray(model_fn(x)).argmax(axis=1)).any()  # It is an attack.


def test_optimised_slopes_prove_more(small):
  """alpha-CROWN with rounding paid for, against CROWN's own slopes."""
  model_fn, shape = small.networks['relu']
  x = np.random.default_rng(3).uniform(0, 1, (8, *shape))
  plain, optimised = (
    bounds.largest(
      model_fn, x, max_eps=0.5, batch=8,
      bound=functools.partial(bounds.crown, upper=False, num_steps=num_steps, step_size=0.3),
    )
    for num_steps in (0, 10)
  )  # fmt: skip
  assert (optimised.radius >= plain.radius).all()
  assert (optimised.radius > plain.radius + 1e-3).any()


def test_batches_and_weights_of_a_module():
  module = models.build('digits-cnn', num_classes=10)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  model_fn = models.bind(module, variables)
  x = np.random.default_rng(2).uniform(0, 1, (5, 8, 8, 1))
  options = {'max_eps': 0.05, 'bound': bounds.interval}
  whole = bounds.largest(model_fn, x, batch=5, **options)
  assert (whole.radius > 0).all()
  below, above = whole.radius[:2] * (1 - 1e-6), whole.radius[:2] * 1.001
  for eps in below:  # In batches that do not divide the images.
    proved = bounds.verify(model_fn, x[[0, 1, 2]], eps, bound=bounds.interval, batch=2)
    np.testing.assert_array_equal(proved.label != ABSTAIN, eps < whole.radius[:3])
  assert (bounds.verify(model_fn, x[:1], above[0], bound=bounds.interval).label == ABSTAIN).all()


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_weights_are_widened_once(dtype):
  """The same numbers in float64, kept as they are the second time; the proof is the same."""
  w = jnp.asarray([[1.1, 0.2], [0.3, 1.7]], dtype)
  model_fn = jax.tree_util.Partial(lambda w, n, x: n * (x @ w.astype(x.dtype)), w, np.arange(2)[1])
  wide = bounds.widened(model_fn)
  assert wide.args[0].dtype == np.float64 and wide.args[1].dtype == np.int64
  np.testing.assert_array_equal(wide.args[0], np.asarray(w, np.float64))
  assert bounds.widened(wide).args[0] is wide.args[0]
  x = np.array([[0.2, 0.4], [0.5, 0.49]])
  options = {'max_eps': 0.5, 'bound': bounds.interval}
  own, given = (bounds.largest(f, x, **options) for f in (model_fn, wide))
  assert own.radius.tolist() == given.radius.tolist() and (own.radius > 0).all()


def test_a_function_has_no_weights_to_widen():
  assert bounds.widened(jnp.sin).func is jnp.sin


def test_nan_weights_prove_nothing():
  model_fn = lambda x: x @ jnp.array([[1.0, 0.0], [jnp.nan, 1.0]])
  proof = bounds.verify(model_fn, np.full((2, 2), 0.5), 0.0)
  assert (proof.label == ABSTAIN).all()


def test_ties_prove_nothing():
  proof = bounds.verify(lambda x: jnp.concatenate([x, x], axis=1), np.full((1, 1), 0.5), 0.0)
  assert proof.label[0] == ABSTAIN


@pytest.mark.parametrize('eps, message', [(-0.1, '`eps` must'), (np.nan, '`eps` must')])
def test_bad_radii(eps, message):
  with pytest.raises(ValueError, match=message):
    bounds.verify(lambda x: x, np.full((1, 6), 0.5), eps)


def test_bad_brackets():
  with pytest.raises(ValueError, match='`max_eps` must be positive'):
    bounds.largest(lambda x: x, np.full((1, 6), 0.5), max_eps=0)
