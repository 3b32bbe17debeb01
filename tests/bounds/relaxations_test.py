"""Lines below and above every activation: sound everywhere in the interval, and touching."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import parallel
from certjax.bounds import _relaxations

FUNCTIONS = {
  'relu': jax.nn.relu, 'softplus': jax.nn.softplus, 'tanh': jnp.tanh, 'logistic': jax.nn.sigmoid,
}  # fmt: skip
ENDS = [-40.0, -5.0, -1.3, -0.2, -1e-9, 0.0, 1e-9, 0.3, 1.0, 4.0, 40.0]
PAIRS = np.array([(a, b) for a, b in itertools.product(ENDS, ENDS) if a <= b])


@pytest.mark.parametrize('kind', FUNCTIONS)
@pytest.mark.parametrize('slope', _relaxations.SLOPES)
def test_lines_hold_on_the_whole_interval(kind, slope):
  with parallel.x64():
    box = (jnp.asarray(PAIRS[:, 0]), jnp.asarray(PAIRS[:, 1]))
    line = _relaxations.lines(kind, box, slope=slope, outward=True)
    x = np.linspace(PAIRS[:, 0], PAIRS[:, 1], 2_001)
    x = np.r_[x, np.clip(0, PAIRS[:, 0], PAIRS[:, 1])[None]]  # A ReLU's line touches there.
    value = np.asarray(FUNCTIONS[kind](x))
    line, near = (
      jax.tree.map(lambda leaf: np.asarray(leaf)[None], made)
      for made in (line, _relaxations.lines(kind, box, slope=slope))
    )
    below = line.lower_slope * x + line.lower_offset
    above = line.upper_slope * x + line.upper_offset
    assert (below <= value).all() and (above >= value).all()
    gap = np.abs(np.asarray(near.upper_slope * x + near.upper_offset) - value).min(axis=0)
    assert (gap < 1e-6).all()  # The line above touches.
    gap = np.abs(np.asarray(near.lower_slope * x + near.lower_offset) - value).min(axis=0)
    assert (gap < 1e-3).all()


@pytest.mark.parametrize('kind', ['tanh', 'logistic'])
def test_tangents_beat_parallel_lines(kind):
  """Across 0 the tangent through the far end is tighter than the slope min(f'(l), f'(u))."""
  with parallel.x64():
    f = FUNCTIONS[kind]
    low, high = jnp.array([-1.0, -3.0]), jnp.array([2.0, 0.5])
    line = _relaxations.lines(kind, (low, high))
    slope = jnp.minimum(jax.vmap(jax.grad(f))(low), jax.vmap(jax.grad(f))(high))
    x = np.linspace(low, high, 1_001)
    ours = (np.asarray(line.upper_slope) * x + np.asarray(line.upper_offset)).sum()
    parallel_line = (np.asarray(f(high)) + np.asarray(slope) * (x - np.asarray(high))).sum()
    assert ours < parallel_line


@pytest.mark.parametrize('slope', [0.0, 0.3, 1.0])
def test_any_lower_slope_of_a_relu(slope):
  box = (jnp.array([-1.0]), jnp.array([2.0]))
  line = _relaxations.lines('relu', box, slope=jnp.array([slope]))
  assert float(line.lower_slope[0]) == pytest.approx(slope) and float(line.lower_offset[0]) == 0
  assert float(line.upper_slope[0]) == pytest.approx(2 / 3)
  assert float(line.upper_offset[0]) == pytest.approx(2 / 3)
