"""Each warning fires on a model that was made for it, and a good model is not bothered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, evaluate, smoothing

X = np.random.default_rng(0).uniform(0, 1, (4, 2, 2, 1)).astype(np.float32)
SETTING = {'num_samples': 10_000, 'alpha': 0.001, 'sigma': 0.25, 'training_sigma': 0.25}


def warnings(model_fn, x=X, **setting):
  return evaluate.sanity_warnings(
    model_fn, smoothing.gaussian(sigma=0.25), x, **{**SETTING, **setting}
  )


def good(x):
  flat = x.reshape(len(x), -1)
  return jnp.stack([flat.sum(1), 1 - flat[:, 0], 3 * flat[:, 1]], axis=1)


def returns_probabilities(x):
  return jax.nn.softmax(good(x))


def mixes_rows(x):
  return good(x) - good(x).mean(0, keepdims=True)  # BatchNorm in training mode does as much.


def returns_nan(x):
  return jnp.where(x.reshape(len(x), -1)[:, :1] > 0.5, jnp.nan, good(x))


def nondeterministic(x):
  rng = np.random.default_rng()
  draw = lambda shape: rng.normal(size=shape).astype(np.float32)
  shape = jax.ShapeDtypeStruct((len(x), 3), jnp.float32)
  return good(x) + jax.experimental.io_callback(lambda: draw((len(x), 3)), shape)


def test_a_good_model_and_setting_are_not_bothered():
  assert warnings(good) == []
  assert warnings(good, x=X[:1]) == []
  assert warnings(good, sigma=None, training_sigma=None) == []


@pytest.mark.parametrize(
  ('model_fn', 'parts'),
  [
    (returns_probabilities, ('probabilities, not logits', 'before the softmax')),
    (mixes_rows, ('depend on the other images', 'evaluation mode')),
    (returns_nan, ('NaN', 'vote for nobody')),
    (lambda x: jnp.full((len(x), 3), jnp.nan), ('NaN', 'vote for nobody')),
  ],
)
def test_models(model_fn, parts):
  (warning,) = warnings(model_fn)
  assert '\n' not in warning and all(part in warning for part in parts)


def test_a_model_that_is_not_deterministic():
  found = warnings(nondeterministic)
  assert any('not deterministic' in warning and 'dropout' in warning for warning in found)


@pytest.mark.parametrize(
  ('setting', 'parts'),
  [
    ({'training_sigma': 0.5}, ('sigma=0.25', 'training noise 0.5', 'stay valid')),
    ({'num_samples': 200}, ('num_samples=200', 'radii up to', '100000 would certify')),
  ],
)
def test_settings(setting, parts):
  (warning,) = warnings(good, **setting)
  assert all(part in warning for part in parts)


def test_rows_that_hardly_mix_are_rounding():
  """Another order of a sum is no BatchNorm."""
  assert warnings(lambda x: good(x) + 1e-6 * good(x).mean(0, keepdims=True)) == []


def test_logits_that_sum_to_one_are_no_probabilities():
  def model_fn(x):
    part = 0.4 * jnp.abs(jnp.tanh(x.reshape(len(x), -1)[:, 0]))
    return jnp.stack([-part, 0.5 + part, jnp.full(len(x), 0.5)], axis=1)

  assert warnings(model_fn) == []


def test_without_noise_the_images_stay_clean():
  """No word on sigma or samples, and the model sees the very images."""
  seen = []

  def spy(x):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
    return good(x)

  margin, setting = certify.lipschitz(), {'num_samples': 9, 'alpha': 0.001, 'training_sigma': 0.5}
  assert evaluate.sanity_warnings(spy, margin, X, sigma=0.25, **setting) == []
  jax.effects_barrier()
  assert any(np.array_equal(x[:4], X) for x in seen)
  (warning,) = evaluate.sanity_warnings(returns_nan, margin, X, sigma=None, **setting)
  assert 'NaN' in warning and 'not certified' in warning
