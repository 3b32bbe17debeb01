"""Every smoothing in one table, against the public protocol checks."""

import jax
import numpy as np
import pytest

from certjax import smoothing, testing

SMOOTHINGS = {
  'ablation': lambda: smoothing.ablation(keep=4, shape=X.shape),
  'discrete': lambda: smoothing.discrete(keep=0.01, levels=255, shape=X.shape),
  'exp1': lambda: smoothing.exp1(k=2, sigma=0.25, shape=X.shape),
  'exp2': lambda: smoothing.exp2(k=4, j=3, sigma=0.25, shape=X.shape),
  'exp_inf': lambda: smoothing.exp_inf(k=2, sigma=0.25, shape=X.shape),
  'expp': lambda: smoothing.expp(p=4, sigma=0.25),
  'gaussian': lambda: smoothing.gaussian(sigma=0.25),
  'generalized_gaussian': lambda: smoothing.generalized_gaussian(q=3, sigma=0.25),
  'laplace': lambda: smoothing.laplace(sigma=0.25),
  'splitting': lambda: smoothing.splitting(sigma=0.25),
  'pareto': lambda: smoothing.pareto(a=3, sigma=0.25),
  'pow2': lambda: smoothing.pow2(k=2, a=60, sigma=0.25, shape=X.shape),
  'pow_inf': lambda: smoothing.pow_inf(a=120, sigma=0.25, shape=X.shape),
  'random_bands': lambda: smoothing.random_bands(width=2, shape=X.shape),
  'random_blocks': lambda: smoothing.random_blocks(size=2, shape=X.shape),
  'uniform': lambda: smoothing.uniform(sigma=0.25),
  'uniform_ball': lambda: smoothing.uniform_ball(sigma=0.25, shape=X.shape),
  'wasserstein': lambda: smoothing.wasserstein(sigma=0.25, shape=X.shape),
}
VIEWS = {
  'bands': lambda: smoothing.bands(width=2, shape=X.shape),
  'blocks': lambda: smoothing.blocks(size=2, shape=X.shape, per_location=False),
  'masks': lambda: smoothing.masks(patch=2, num_masks=3, shape=X.shape, fill=(0.1, 0.2, 0.3)),
  'multi_bands': lambda: smoothing.multi_bands(width=1, keep=2, shape=X.shape),
  'deterministic_splitting': lambda: smoothing.deterministic_splitting(sigma=0.25, shape=X.shape),
}
NO_FACTORY = {  # Limits and one-dimensional proofs return numbers, not a `Smoothing`.
  'gaussian_radius_lp', 'generalized_gaussian_limit', 'iid_limit', 'l1_ball_limit', 'probit_slope',
  'uniform_linf_limit', 'worst_case',
  'ablation_change', 'discrete_threshold', 'pixeldp_radius', 'renyi_radius', 'subset',
  'ablation_information', 'discrete_information',
}  # fmt: skip
X = np.random.default_rng(0).uniform(0, 1, (6, 5, 3)).astype(np.float32)


@pytest.mark.parametrize('name', SMOOTHINGS)
def test_protocol(name):
  testing.check_smoothing(SMOOTHINGS[name](), X)


@pytest.mark.parametrize('name', VIEWS)
def test_views(name):
  views = VIEWS[name]()
  x = np.round(X * (views.quantization or 1)) / np.float32(views.quantization or 1)
  seen = np.asarray(jax.jit(jax.vmap(views.view, (None, 0)))(x, np.arange(views.num_views)))
  key = jax.random.key(0)
  drawn = np.asarray(views.sample(key, x))
  np.testing.assert_array_equal(drawn, views.sample(key, x))
  near = np.abs(seen - drawn) <= 1e-6  # Compiled and not, a view may differ in its last bit.
  assert np.all(near, axis=(1, 2, 3)).any(), 'a sample is one of the views'
  votes = np.asarray(views.vote(np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)))
  assert votes.shape == (7, 4) and votes.dtype == bool
  assert views.needs in ('counts', 'votes') and views.shape == X.shape
  kept = np.zeros((2, views.num_views, 4), bool)
  kept[:, :, 3] = True
  proof = views.decide(kept.sum(axis=1) if views.needs == 'counts' else kept)
  testing.check_certificate(proof, 4)
  assert (proof.label == 3).all() and (proof.radius > 0).all()


def test_every_public_factory_is_in_the_table():
  factories = {name for name in smoothing.__all__ if name[0].islower()} - NO_FACTORY
  assert factories == set(SMOOTHINGS) | set(VIEWS)


BROKEN = {
  'claims at one half': lambda good: good._replace(radius=lambda p_a, p_b=None, *, x=None: np.asarray(p_a) * 1.0),
  'NaN is a proof': lambda good: good._replace(
    radius=lambda p_a, p_b=None, *, x=None: np.maximum(good.radius(np.nan_to_num(p_a, nan=1)), 0)
  ),
  'ignores the key': lambda good: good._replace(sample=lambda key, x: x + 0.25),
  'forgets the state': lambda good: good._replace(
    sample=lambda key, x: x + np.random.default_rng().normal(size=x.shape).astype(np.float32)
  ),
}  # fmt: skip


@pytest.mark.parametrize('fault', BROKEN)
def test_the_check_sees_a_broken_smoothing(fault):
  with pytest.raises(AssertionError):
    testing.check_smoothing(BROKEN[fault](smoothing.gaussian(sigma=0.25)), X)


def test_one_trace_serves_all_sigmas():
  traces = []

  @jax.jit
  def draw(sample, key, x):
    traces.append(1)
    return sample(key, x)

  for sigma in (0.12, 0.25, 0.5):
    draw(smoothing.gaussian(sigma=sigma).sample, jax.random.key(0), X)
  assert len(traces) == 1
