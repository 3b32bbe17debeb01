"""The library distrusts itself: signs that a certificate would not mean what its user thinks."""

import jax
import numpy as np

from certjax import certify
from certjax.evaluate._certification import is_clean, is_exact

_USUAL_SAMPLES, _CAP = 100_000, 0.75


def sanity_warnings(
  model_fn, smoothing, x, *, num_samples, alpha, sigma=None, training_sigma=None, chunk=16
):
  """Warnings about a model and a setting, each one line with its remedy.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`.
    smoothing: a `Smoothing`, `Views`, or what `is_clean`, whose images stay as they are.
    x: float[B, ...], a few images in [0, 1].
    num_samples, alpha: of the certification to come.
    sigma: noise of the certification, in pixel values.
    training_sigma: noise of the training, None where unknown.
    chunk: rows of the probing batch.

  Returns:
    A list of strings, empty where nothing is odd:
      probabilities: the outputs are a softmax (attacks lose their gradient);
      nondeterministic: two calls on one batch differ;
      batch: a row's logits depend on the other rows (BatchNorm in training mode);
      sigma: the noise is not that of training;
      samples: `num_samples` caps every radius below three quarters of what 100,000 could certify.

  Example:
    >>> from certjax import smoothing
    >>> x, law = np.full((2, 1, 2, 1), 0.5, np.float32), smoothing.gaussian(sigma=0.25)
    >>> softmax = lambda x: jax.nn.softmax(x.reshape(len(x), -1))
    >>> found = sanity_warnings(softmax, law, x, num_samples=100_000, alpha=0.001)
    >>> [line.split(':')[0] for line in found]
    ['the model seems to return probabilities, not logits']
  """
  keys = jax.random.split(jax.random.key(0), chunk)
  rows = np.asarray(x)[np.arange(chunk) % len(x)]
  clean = is_clean(smoothing)
  noisy = rows if clean else jax.vmap(smoothing.sample)(keys, rows)
  first, second = (certify.evaluate(model_fn, noisy) for _ in range(2))
  mixed = certify.evaluate(model_fn, np.r_[noisy[:1], np.zeros_like(noisy[1:])])
  found = []
  if np.isnan(first).any():
    lost = 'such images are not certified.' if clean else 'those samples vote for nobody.'
    found.append(f'the model returns NaN: {lost}')
  if _are_probabilities(first):
    found.append(
      'the model seems to return probabilities, not logits: certificates are unaffected, gradient '
      'attacks are weakened; return the layer before the softmax.'
    )
  if not np.array_equal(first, second, equal_nan=True):
    found.append(
      'the model is not deterministic (two calls on one batch differ): switch dropout and other '
      'randomness off; a resumed run could not repeat its votes.'
    )
  scale = np.nanmax(np.abs(first[0]), initial=1e-6)
  if not np.allclose(first[0], mixed[0], rtol=0, atol=1e-3 * scale, equal_nan=True):
    found.append(
      "an image's logits depend on the other images of its batch: the certificate does not cover "
      'that; use BatchNorm in evaluation mode.'
    )
  return found + _about_setting(smoothing, num_samples, alpha, sigma, training_sigma)


def _are_probabilities(outputs):
  inside = (outputs >= 0).all() and (outputs <= 1).all()
  return bool(inside and np.allclose(outputs.sum(axis=-1), 1, atol=1e-4))


def _about_setting(smoothing, num_samples, alpha, sigma, training_sigma):
  found = []
  if is_clean(smoothing):  # No noise.
    return found
  if sigma is not None and training_sigma is not None and sigma != training_sigma:
    found.append(
      f'sigma={sigma:g} is not the training noise {training_sigma:g}: expect a lower certified '
      f'accuracy; the certificates stay valid.'
    )
  if is_exact(smoothing):  # No samples, no cap.
    return found
  largest = certify.largest_radius(smoothing, num_samples, alpha)
  usual = certify.largest_radius(smoothing, _USUAL_SAMPLES, alpha)
  if largest < _CAP * usual:
    found.append(
      f'num_samples={num_samples} at alpha={alpha:g} can certify radii up to {largest:.4g} at most; '
      f'{_USUAL_SAMPLES} would certify up to {usual:.4g}.'
    )
  return found
