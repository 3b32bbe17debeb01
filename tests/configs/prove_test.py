"""`prove`: a model and images in, a run ready to report out; bad input is refused before work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, evaluate, models, prove, report, smoothing

X = np.random.default_rng(0).uniform(0, 1, (3, 4, 4, 1)).astype(np.float32)
OPTIONS = {'sigma': 0.25, 'num_samples': 100, 'num_selection': 20, 'chunk': 50}


def model_fn(x):
  return jnp.stack([x.mean((1, 2, 3)), 0.5 + 0 * x[:, 0, 0, 0]], axis=1)


def test_it_is_sampled_in_ten_lines():
  run = prove(model_fn, X, [0, 1, 0], **OPTIONS)
  options = {key: value for key, value in OPTIONS.items() if key != 'sigma'}
  proof = certify.sampled(jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.25), X, **options)
  np.testing.assert_array_equal(run.certificate.radius, proof.radius)
  np.testing.assert_array_equal(run.certificate.label, proof.label)
  assert run.labels.tolist() == [0, 1, 0] and run.header['unit'] == 'pixel value'
  assert '| gaussian | 3 |' in report.markdown(report.table([run]))


def test_grey_levels_are_pixels():
  grey = np.round(X * 255).astype(np.uint8)
  run = prove(model_fn, grey, [0, 0, 0], **OPTIONS)
  same = prove(model_fn, grey.astype(np.float32) / 255, [0, 0, 0], **OPTIONS)
  np.testing.assert_array_equal(run.certificate.radius, same.certificate.radius)


def refuse(message, x=X, y=(0, 0, 0), fn=model_fn, **options):
  called = []

  def spy(images):
    called.append(not isinstance(images, jax.core.Tracer))
    return fn(images)

  with pytest.raises(ValueError, match=message):
    prove(spy, x, y, **{**OPTIONS, **options})
  assert not any(called)  # Traced for its shape at most, never run.


@pytest.mark.parametrize(
  ('x', 'message'),
  [
    (X[0], 'must be NHWC.*add a batch axis'),
    (X[..., 0, 0], 'must be NHWC'),
    (X[:0], 'at least one image'),
    (np.full((3, 3, 8, 8), 0.5, np.float32), 'NCHW'),
    (X * 255, 'divide by 255'),
    (X * 2 - 1, r'\[-1, 1\]'),
    (X - 3, r'must lie in \[0, 1\]'),
    (np.where(X > 0.5, np.nan, X), 'NaN'),
    (np.where(X > 0.5, np.inf, X), r'must lie in \[0, 1\]'),
    (X.astype(int), 'uint8'),
  ],
)
def test_images(x, message):
  refuse(message, x=x)


@pytest.mark.parametrize(
  ('y', 'message'),
  [
    ([0, 0], 'one label an image, got 2 for 3'),
    ([[0, 1]] * 3, 'one label an image'),
    ([0.0, 1.0, 0.0], 'must be integers'),
    ([0, 2, 0], r'must lie in 0 \.\. 1, got 2 at \[1\]'),
    ([-1, 0, 0], r'must lie in 0 \.\. 1, got -1 at \[0\]'),
  ],
)
def test_labels(y, message):
  refuse(message, y=y)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_samples': 9}, '`num_samples`=9 can never certify at `alpha`=0.001: at least 10'),
    ({'num_samples': 9, 'runner_up': True}, 'can never certify'),
    ({'num_selection': 0}, '`num_selection`'),
    ({'chunk': 0}, '`chunk`'),
    ({'alpha': 0.0}, '`alpha`'),
    ({'alpha': 1.0}, '`alpha`'),
    ({'alpha': float('nan')}, '`alpha`'),
    ({'sigma': -0.5}, '`sigma`.*got sigma=-0.5'),
    ({'sigma': float('nan')}, '`sigma`.*got sigma=nan'),
    ({'method': 'cohen'}, "`method` must be one of .*got 'cohen'"),
  ],
)
def test_options(options, message):
  refuse(message, **options)


def test_a_model_for_other_images():
  module = models.build('digits-cnn', num_classes=10)
  bound = models.bind(module, module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
  with pytest.raises(ValueError, match=r'`model_fn` does not take .* \(4, 4, 1\)') as caught:
    prove(bound, X, [0, 0, 0], **OPTIONS)
  assert caught.value.__cause__ is not None


def test_a_lipschitz_network_needs_no_noise():
  module = models.LipConvNet(3, width=2)
  bound = models.bind(module, jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1))))
  run = prove(bound, X, [0, 1, 2], method='lipschitz')
  network = evaluate.exact_network(bound, shape=(4, 4, 1))
  proof = evaluate.margin_certificate(network, X)
  np.testing.assert_array_equal(run.certificate.radius, proof.radius)
  np.testing.assert_array_equal(run.certificate.label, proof.label)
  assert (proof.radius > 0).all() and proof.label.tolist() == np.argmax(bound(X), axis=1).tolist()
  assert run.header == {'norm': 'l2', 'unit': 'pixel value', 'quantifier': 'exact'}
  assert '| lipschitz | 3 |' in report.markdown(report.table([run]))
  with pytest.raises(ValueError, match=r'`y` must lie in 0 \.\. 2, got 3'):
    prove(bound, X, [0, 1, 3], method='lipschitz')
  with pytest.raises(ValueError, match='lipschitz has no parameter sigma; it takes norm'):
    prove(bound, X, [0, 1, 2], method='lipschitz', sigma=0.25)
  with pytest.raises(ValueError, match='needs a network that states its constant'):
    prove(model_fn, X, [0, 1, 0], method='lipschitz')
