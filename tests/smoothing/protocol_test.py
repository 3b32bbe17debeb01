"""Every smoothing in one table, against the public protocol checks."""

import jax
import numpy as np
import pytest

from certjax import smoothing, testing

SMOOTHINGS = {
  'gaussian': lambda: smoothing.gaussian(sigma=0.25),
}
X = np.random.default_rng(0).uniform(0, 1, (6, 5, 3)).astype(np.float32)


@pytest.mark.parametrize('name', SMOOTHINGS)
def test_protocol(name):
  testing.check_smoothing(SMOOTHINGS[name](), X)


def test_every_public_factory_is_in_the_table():
  factories = {name for name in smoothing.__all__ if name[0].islower()}
  assert factories == set(SMOOTHINGS)


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
