"""Flipped training labels that a classifier withstands which was smoothed over its labels.

Flip every binary training label on its own with probability q, train, predict: the smoothed
classifier answers with the class that this does more often than not. If that has probability p >
1/2 on the labels as they are, it has more than 1/2 on all that differ in few: by the
Kullback-Leibler divergence of the two noises, or exactly, by Neyman and Pearson (Lee's discrete
certificate with two values). For ridge regression p needs no sampling: the prediction is linear in
the labels, a^T y, with weights that no label changes, and Chernoff's bound of its tail is proved,
not estimated (Rosenfeld, Winston, Ravikumar & Kolter 2020).

Two classes only. No JAX but what `certjax.smoothing` imports.
"""

import math
from fractions import Fraction

import numpy as np
import scipy.special

from certjax.certify import ABSTAIN, Certificate, certificate
from certjax.smoothing import discrete_threshold

_BLOCK = 2**22  # Weights looked at in one go.
_LARGEST = 512  # No larger exact radius is looked for: its integers grow with its square.
_RELATIVE = 1e-13  # Exponentials, and logarithms away from their zero: a few last places.
_TINY = 1e-300  # Keeps t finite where all weights vanish.
_ULP = 2.0**-52
_SCALES = (-20.0, 12.0)  # log2 of t max|a| between which Chernoff's t is looked for.
_HALVINGS = 32


def flip_radius(tail, num_labels: int, *, flip_probability, bound: str = 'exact'):
  r"""How many flipped training labels leave the smoothed classifier's answer as it is.

    'kl'      ln(4 p (1 - p)) / (2 (1 - 2 q) ln(q / (1 - q))),   p = 1 - tail
    'exact'   max {r : p > rho_r^{-1}(1/2)},   `smoothing.discrete_threshold` with keep 1 - q

  'exact' is the best possible from p alone, in rational arithmetic; above 512 flips it gives way to
  'kl' if that is more. A tail of 0 proves all labels.

  Args:
    tail: float[...], an upper bound of the probability 1 - p that the answer is not the smoothed
      one: `score_tail`, or 1 - `certify.clopper_pearson` of trainings with sampled flips.
    num_labels: n, labels of the training set.
    flip_probability: q in (0, 1/2); a float stands for the decimal that prints it.
    bound: 'exact' or 'kl'.

  Returns:
    float64[...], at most n, rounded down, in flipped labels; 0 where nothing is proved (tail at
    least 1/2, or NaN).

  Raises:
    ValueError: for q outside (0, 1/2), `num_labels` below 1, or another `bound`.

  Example:
    >>> float(flip_radius(0.01, 100, flip_probability=0.4))
    33.0
    >>> round(float(flip_radius(0.01, 100, flip_probability=0.4, bound='kl')), 4)
    19.9088

  References:
    Rosenfeld, Winston, Ravikumar & Kolter 2020 (arXiv:2002.03018).
  """
  q = _check_probability(flip_probability)
  if bound not in _BOUNDS:
    raise ValueError(f'`bound` must be one of {", ".join(_BOUNDS)}; got {bound!r}.')
  if not num_labels >= 1:
    raise ValueError(f'`num_labels` must be at least 1, got num_labels={num_labels}.')
  tail = np.asarray(tail, np.float64)
  proved = (tail >= 0) & (tail < 0.5)
  radius = _BOUNDS[bound](np.where(proved, tail, 0.25), int(num_labels), q)
  return np.where(proved, np.where(tail == 0, float(num_labels), radius), 0.0)


def score_tail(weights, labels, *, flip_probability):
  r"""The likely side of a score a^T y~ under flipped labels, and a bound of the other's tail.

    y~_i = y_i with probability 1 - q, else 1 - y_i;     label = 1{a^T E[y~] > 1/2}
    Pr[a^T y~ <= 1/2] <= min_{t >= 0} exp(t / 2) prod_i E[exp(-t a_i y~_i)]      for label 1,
    Pr[a^T y~ >= 1/2] <= the same with -a and -1/2 for a and 1/2                 for label 0

  Every t gives a bound: one near the minimum is found by bisection, and the logarithm of the bound
  there is raised by more than all its roundings. It is about the weights as they are given, in
  exact arithmetic; a score of 1/2 counts as wrong.

  Args:
    weights: float64[..., n], a for each prediction.
    labels: int[n], the training labels, 0 or 1.
    flip_probability: q, as `flip_radius`.

  Returns:
    int64[...] labels and float64[...] bounds, in (0, 1].

  Raises:
    ValueError: for q outside (0, 1/2), other labels, weights that are not finite, or shapes that do
      not fit.

  Example:
    >>> label, tail = score_tail(np.full(20, 0.05), [1] * 16 + [0] * 4, flip_probability=0.1)
    >>> int(label), round(float(tail), 7)
    (1, 0.0098044)
  """
  q = _check_probability(flip_probability)
  labels = _check_labels(labels)
  weights = np.asarray(weights, np.float64)
  if weights.shape[-1:] != labels.shape or not np.isfinite(weights).all():
    raise ValueError(
      f'`weights` must be finite, one for each of the {len(labels)} labels in the last axis, got '
      f'shape {weights.shape}.'
    )
  keep, flip = math.log1p(-q), math.log(q)
  # Of a noised label: the logarithms of its probability to be 0, and to be 1.
  logs = np.where(labels == 1, [[flip], [keep]], [[keep], [flip]])
  flat, shape = weights.reshape(-1, len(labels)), weights.shape[:-1]
  label = (flat @ np.exp(logs[1]) > 0.5).astype(np.int64)
  tail = np.ones(len(flat))
  step = max(1, _BLOCK // len(labels))
  for start in range(0, len(flat), step):
    rows = slice(start, start + step)
    side = np.where(label[rows] == 1, 1, -1)
    tail[rows] = _chernoff(side[:, None] * flat[rows], side / 2, logs)
  return label.reshape(shape), tail.reshape(shape)


def ridge_weights(features, x, *, ridge: float):
  r"""The weight of each training label in the prediction of ridge regression.

    a(x) = X (X^T X + ridge I)^{-1} x,   so that   prediction(x) = a(x)^T y   for all y

  Args:
    features: float[n, d], the training set X (append a column of ones for an intercept).
    x: float[..., d], what is predicted.
    ridge: positive penalty of the squared coefficients.

  Returns:
    float64[..., n].

  Raises:
    ValueError: unless `ridge` is positive and shapes fit.

  Example:
    >>> ridge_weights([[1.0], [2.0]], [3.0], ridge=1.0)
    array([0.5, 1. ])
  """
  features, x = np.asarray(features, np.float64), np.asarray(x, np.float64)
  if not 0 < ridge < math.inf:
    raise ValueError(f'`ridge` must be positive and finite, got ridge={ridge}.')
  if features.ndim != 2 or x.shape[-1:] != features.shape[1:]:
    raise ValueError(
      f'`features` must be [n, d] and `x` [..., d], got shapes {features.shape} and {x.shape}.'
    )
  gram = features.T @ features + ridge * np.eye(features.shape[1])
  flat = np.linalg.solve(gram, x.reshape(-1, x.shape[-1]).T).T @ features.T
  return flat.reshape(*x.shape[:-1], len(features))


def ridge_smoothed_certificate(
  features, labels, x, *, flip_probability, ridge: float, bound: str = 'exact'
) -> Certificate:
  """Ridge regression on 0 / 1 labels, smoothed over label flips, and the flips that it withstands.

  The base classifier says 1 where a(x)^T y > 1/2. Nothing is trained and nothing is sampled: the
  certificate is deterministic. It holds for these weights, as float64 numbers, and scores in exact
  arithmetic; features are trusted.

  Args:
    features: float[n, d], training features, of an extractor that no label has touched.
    labels: int[n], 0 or 1; the set that is certified, flips and all.
    x: float[..., d], features of what is classified.
    flip_probability: q in (0, 1/2): more noise certifies more flips of what is still classified.
    ridge: as `ridge_weights`.
    bound: 'exact' or 'kl', as `flip_radius`.

  Returns:
    A `Certificate`, radius in flipped training labels; `ABSTAIN` where the tail's bound is 1/2 or
    more.

  Raises:
    ValueError: as `flip_radius`, `score_tail` and `ridge_weights`.

  Example:
    >>> features, labels = np.array([[1.0, 1.0]] * 30 + [[1.0, -1.0]] * 30), [1] * 30 + [0] * 30
    >>> x = [[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]]
    >>> ridge_smoothed_certificate(features, labels, x, flip_probability=0.3, ridge=0.01)
    Certificate(label=array([ 1,  0, -1]), radius=array([3., 3., 0.]))

  References:
    Rosenfeld, Winston, Ravikumar & Kolter 2020 (arXiv:2002.03018), section on least squares.
  """
  weights = ridge_weights(features, x, ridge=ridge)
  label, tail = score_tail(weights, labels, flip_probability=flip_probability)
  radius = flip_radius(tail, weights.shape[-1], flip_probability=flip_probability, bound=bound)
  return certificate(np.where(tail < 0.5, label, ABSTAIN), radius)


def _chernoff(weights, threshold, logs):
  """float64[B], at least Pr[weights . y~ <= threshold]."""
  unit = np.maximum(np.abs(weights).max(axis=-1), _TINY)
  odds = logs[1] - logs[0]
  low, high = (np.full(len(weights), scale) for scale in _SCALES)
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    t = np.exp2(middle) / unit
    # While the mean under the tilted law is above the threshold, the bound still falls in t.
    mean = (weights * scipy.special.expit(odds - t[:, None] * weights)).sum(axis=-1)
    low, high = np.where(mean > threshold, [middle, high], [low, middle])
  return _bound_at(np.exp2(low) / unit, weights, threshold, logs)


def _bound_at(t, weights, threshold, logs):
  """exp(t threshold) prod_i E[exp(-t weights_i y~_i)], rounded up: a bound whatever t >= 0 is."""
  exponents = t[:, None] * weights
  terms = np.logaddexp(logs[0], logs[1] - exponents).sum(axis=-1) + t * threshold
  # A term is wrong by a few units of these, and a sum of n, in any order, by n units.
  scale = (1 + np.abs(logs).sum(axis=0) + np.abs(exponents)).sum(axis=-1) + np.abs(t * threshold)
  log = terms + (weights.shape[-1] + 32) * _ULP * scale
  return np.minimum(np.nextafter(np.exp(np.minimum(log, 0.0)) * (1 + _RELATIVE), 1.0), 1.0)


def _kl(tail, num_labels, q):
  # 4 p (1 - p) = 1 - 4 (1/2 - tail)^2: each form where no rounded number near 1 is in a logarithm.
  near = np.log1p(-4 * (0.5 - np.maximum(tail, 0.1)) ** 2)
  with np.errstate(divide='ignore'):
    far = math.log(4) + np.log(tail) + np.log1p(-tail)
  divergence = -np.where(tail >= 0.1, near, far)
  slope = 2 * float(1 - 2 * q) * math.log1p(float((1 - 2 * q) / q))
  radius = np.nextafter(divergence / slope * (1 - _RELATIVE), -np.inf)
  return np.clip(radius, 0.0, float(num_labels))


def _exact(tail, num_labels, q):
  values, inverse = np.unique(tail, return_inverse=True)
  exact = np.array([_largest(Fraction(value), num_labels, q) for value in values.tolist()], float)
  larger = np.where(exact == _LARGEST, np.floor(_kl(values, num_labels, q)), 0.0)
  return np.maximum(exact, larger)[inverse].reshape(tail.shape)


def _largest(tail, num_labels, q):
  """The largest r up to num_labels and 512 that is proved; fewer flips are proved too."""
  low, high = 0, min(num_labels, _LARGEST) + 1
  while high - low > 1:
    middle = (low + high) // 2
    proved = 1 - tail > discrete_threshold(1 - q, 1, middle)
    low, high = (middle, high) if proved else (low, middle)
  return low


def _check_probability(flip_probability):
  finite = math.isfinite(flip_probability)
  exact = Fraction(repr(float(flip_probability))) if finite else Fraction(0)
  exact = flip_probability if isinstance(flip_probability, Fraction) else exact
  if not 0 < exact < Fraction(1, 2):
    raise ValueError(
      f'`flip_probability` must lie in (0, 1/2), got flip_probability='
      f'{flip_probability}: at 1/2 all labels are noise.'
    )
  return exact


def _check_labels(labels):
  labels = np.asarray(labels)
  integers = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1 and len(labels) > 0
  if not integers or not np.isin(labels, (0, 1)).all():
    raise ValueError(
      f'`labels` must be one axis of integers 0 and 1, got {labels.dtype}'
      f'{list(labels.shape)}: two classes only; for more, `poisoning.sorted_unlabelled` with '
      f'`certify.aggregate`.'
    )
  return labels


_BOUNDS = {'exact': _exact, 'kl': _kl}
