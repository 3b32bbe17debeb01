"""Certified confidence: how far the expected score of a class can fall (Kumar et al. 2020).

On the device, scores of a class under Gaussian noise are counted between fixed thresholds. On
the host, p_i <= Pr[score >= s_i] holds at x, so Phi(Phi^-1(p_i) - R / sigma) holds at distance
R in L2, and the expected score there is at least

  low + (s_1 - low) Phi(Phi^-1(p_1) - R / sigma) + sum_i (s_i - s_{i-1}) Phi(Phi^-1(p_i) - R / sigma).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from certjax.certify import _engine, _program, _votes
from certjax.certify._confidence import check_alpha, clopper_pearson

_RELATIVE = 1e-12  # scipy's ndtri and ndtr are off by ulps; |z| = 40 multiplies that by 1600.
_FARTHEST = 80.0  # In sigmas: Phi(8.3 - 80) is 0 in float64, whatever p < 1 was proved.


def score_histogram(
  key, model_fn, smoothing, x, *, class_index, num_samples, thresholds, score='probability',
  index=None, chunk=1000, mesh=None, slots=None,
):  # fmt: skip
  """Counts how many noisy scores of a class fall between each two thresholds.

    counts[b, j] = #{samples whose score is >= exactly j of the n thresholds}

  'probability' is the softmax of the class, in [0, 1]; 'margin' subtracts the largest other
  softmax, in [-1, 1]. The noise is that of `votes` with the same key; memory does not depend
  on the number of samples. A NaN among the logits falls below every threshold. Choose
  `class_index` on other samples (`sampled_votes` with another key), the thresholds before
  looking at any.

  Args:
    key: one typed key.
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    smoothing: a `Smoothing`.
    x: float[B, ...], images.
    class_index: int[B], the class whose score is counted.
    num_samples: samples an image.
    thresholds: float[n], ascending. Compared in float32, each rounded up to it.
    score: 'probability' or 'margin'.
    index: int[B], data set indices; default 0..B-1.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.
    slots: as in `votes`.

  Returns:
    int64[B, n + 1] on the host; every row sums to `num_samples`.

  Raises:
    ValueError: on thresholds that do not ascend, a class that does not exist, an unknown score, or
      as `votes`.

  Example:
    >>> from certjax import smoothing
    >>> model_fn = lambda x: jnp.stack([8 * x[:, 0], jnp.zeros(len(x))], axis=1)
    >>> counts = score_histogram(jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.1),
    ...   jnp.array([[1.0]]), class_index=[0], num_samples=100, thresholds=[0.5, 0.9], chunk=50)
    >>> counts.tolist()
    [[0, 0, 100]]
  """
  if score not in _SCORES:
    raise ValueError(f'`score` must be one of {tuple(_SCORES)}, got score={score!r}.')
  thresholds = _float32_above(_check_thresholds(thresholds))
  x, index = _votes.check(smoothing, x, index, num_samples, chunk)
  model_fn, perturb = _program.as_pytree(model_fn), _program.draws(smoothing)
  classes = _votes.check_classes(
    'class_index', class_index, len(x), _program.num_classes(model_fn, perturb, x.shape[1:], chunk)
  )
  tally = jax.tree_util.Partial(_tally, _program.as_pytree(_SCORES[score]), thresholds)
  bins = (len(thresholds) + 1,)
  program = _program.Program(model_fn, perturb, tally, jnp.stack([key]), bins)
  counts = _votes.each(
    program, x, index, lambda: _engine.once((0, num_samples)),
    chunk=chunk, mesh=mesh, slots=slots, extra=classes,
  )  # fmt: skip
  return np.stack([count for (count,) in counts])


def _tally(score, thresholds, counts, row, number, logits, classes):
  del number
  values = jax.vmap(score)(logits, classes)
  place = jnp.searchsorted(thresholds, values, side='right').astype(jnp.int32)
  # Of the logits: XLA's exp on CPU can turn a NaN into a number.
  place = jnp.where(jnp.any(jnp.isnan(logits), axis=-1) | jnp.isnan(values), 0, place)
  return counts.at[row, place].add(1, mode='drop')


def _probability(logits, label):
  return jax.nn.softmax(logits)[label]


def _margin(logits, label):
  scores = jax.nn.softmax(logits)
  others = jnp.where(jnp.arange(len(scores)) == label, -1.0, scores)
  return scores[label] - others.max()


_SCORES = {'probability': _probability, 'margin': _margin}


def confidence(
  counts, *, thresholds, sigma, radius, alpha=1e-3, method='per_threshold', low=0.0, high=1.0
):
  r"""Lower bound of the expected score at every point within an L2 distance.

  What is known at x, each with probability at least 1 - alpha, N the sum of the counts:

    'dkw':            p_i = share(score >= s_i) - sqrt(ln(1/alpha) / (2 N))  for all i at once
    'per_threshold':  p_i = ClopperPearson(count(score >= s_i), N, alpha / n),  far tighter near 1
    'mean':           the mean of the scores, each rounded down to a threshold, by Hoeffding

  Args:
    counts: int[..., n + 1], from `score_histogram`.
    thresholds: float[n], ascending, the same ones; in (low, high]. For 'per_threshold' they
      must not depend on the samples.
    sigma: standard deviation of the Gaussian noise.
    radius: float[...], broadcast against the leading axes of `counts`.
    alpha: failure probability, per image (for all radii together).
    method: 'dkw', 'per_threshold' or 'mean'.
    low, high: range of the score: 0 and 1, or -1 and 1 for margins.

  Returns:
    float64[...], rounded down.

  Raises:
    ValueError: on counts that do not match the thresholds, thresholds outside the range, a bad
      alpha (DKW needs at most 1/2) or an unknown method.

  Example:
    >>> counts = np.array([0, 10, 990])  # Scores of 1000 samples: 10 in [.5, .9), 990 above.
    >>> bound = confidence(counts, thresholds=[0.5, 0.9], sigma=0.25, radius=[0, 0.25])
    >>> bound.round(3)
    array([0.886, 0.794])

  References:
    Kumar, Levine, Feizi & Goldstein 2020 (arXiv:2009.08061); Massart 1990.
  """
  return _bound(counts, thresholds, alpha, method, low, high)(radius, sigma)


def confidence_radius(
  counts, target, *, thresholds, sigma, alpha=1e-3, method='per_threshold', low=0.0, high=1.0
):
  """The largest L2 radius at which `confidence` still proves `target`, by bisection.

  Args:
    counts: int[..., n + 1], from `score_histogram`.
    target: float, a score in (low, high].
    thresholds, sigma, alpha, method, low, high: as `confidence`.

  Returns:
    float64[...], rounded down; 0 where the target is not proved beyond x itself (whether it is
    proved at x, `confidence` with radius 0 says).

  Raises:
    ValueError: as `confidence`, or for a target outside (low, high].

  Example:
    >>> counts = np.array([0, 0, 1000])
    >>> round(float(confidence_radius(counts, 0.5, thresholds=[0.5, 0.9], sigma=0.25)), 3)
    0.572

  References:
    Kumar, Levine, Feizi & Goldstein 2020 (arXiv:2009.08061).
  """
  if not low < target <= high:
    raise ValueError(f'`target` must lie in ({low:g}, {high:g}], got target={target}.')
  bound = _bound(counts, thresholds, alpha, method, low, high)
  inside = np.zeros(np.shape(counts)[:-1])
  outside = np.full(inside.shape, _FARTHEST * sigma)
  for _ in range(64):
    middle = (inside + outside) / 2
    proved = bound(middle, sigma) >= target
    inside, outside = np.where(proved, middle, inside), np.where(proved, outside, middle)
  return inside


def shifted_mean(probabilities, thresholds, *, sigma, radius, low=0.0):
  r"""Lower bound of an expected score at distance R from lower bounds of its law at x.

    low + sum_i (s_i - s_{i-1}) Phi(Phi^-1(p_i) - R / sigma),  s_0 = low

  Args:
    probabilities: float[..., n], p_i <= Pr[score >= s_i] under the noise at x.
    thresholds: float[n], ascending, s_1 >= low.
    sigma: standard deviation of the Gaussian noise.
    radius: float[...], L2 distances, broadcast against the leading axes.
    low: smallest possible score.

  Returns:
    float64[...], rounded down. NaN proves nothing: it counts as p = 0.

  Example:
    >>> float(shifted_mean([0.9], [1.0], sigma=0.25, radius=0.25).round(6))
    0.610856

  References:
    Kumar, Levine, Feizi & Goldstein 2020 (arXiv:2009.08061), Theorem 2.
  """
  p = np.clip(np.nan_to_num(np.asarray(probabilities, np.float64), nan=0.0), 0.0, 1.0)
  steps = np.diff(np.concatenate([[low], np.asarray(thresholds, np.float64)]))
  shift = np.asarray(radius, np.float64)[..., None] / sigma
  z = special.ndtri(p)
  with np.errstate(invalid='ignore'):  # inf - inf: p = 1 survives every shift.
    z = z - _RELATIVE * np.abs(z) - shift * (1 + _RELATIVE)
  kept = np.where(p == 1, 1.0, special.ndtr(z) * (1 - _RELATIVE))
  kept = np.where(p == 0, 0.0, kept)
  gain = (steps * kept).sum(axis=-1) * (1 - _RELATIVE)
  value = np.nextafter(low + gain, -np.inf) - 4e-16 * abs(low)
  return np.where(gain > 0, np.maximum(value, low), low)


def _bound(counts, thresholds, alpha, method, low, high):
  """`(radius, sigma) -> float64[...]`, with what does not depend on the radius done once."""
  check_alpha(alpha)
  if method not in _METHODS:
    raise ValueError(f'`method` must be one of {tuple(_METHODS)}, got method={method!r}.')
  thresholds = _check_thresholds(thresholds)
  counts = np.asarray(counts)
  if counts.ndim < 1 or counts.shape[-1] != len(thresholds) + 1:
    raise ValueError(
      f'`counts` must be [..., n + 1] for n thresholds, got shape {counts.shape} for '
      f'n={len(thresholds)}.'
    )
  if not (low < thresholds[0] and thresholds[-1] <= high):
    raise ValueError(
      f'`thresholds` must lie in ({low:g}, {high:g}], got [{thresholds[0]}, {thresholds[-1]}].'
    )
  above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1].astype(np.float64)
  p, levels = _METHODS[method](above[..., 1:], above[..., :1], thresholds, alpha, low, high)
  return lambda radius, sigma: shifted_mean(p, levels, sigma=sigma, radius=radius, low=low)


def _dkw(above, total, thresholds, alpha, low, high):
  del low, high
  return above / total * (1 - _RELATIVE) - _width(total, alpha), thresholds


def _per_threshold(above, total, thresholds, alpha, low, high):
  del low, high
  return clopper_pearson(above, total, alpha=alpha / len(thresholds)), thresholds


def _mean(above, total, thresholds, alpha, low, high):
  """A score with values low and high only, whose mean is the bound of the mean."""
  steps = np.diff(np.concatenate([[low], thresholds]))
  share = (steps * above).sum(axis=-1, keepdims=True) / total / (high - low)
  return share * (1 - _RELATIVE) - _width(total, alpha), np.array([high], np.float64)


_METHODS = {'dkw': _dkw, 'per_threshold': _per_threshold, 'mean': _mean}


def _width(total, alpha):
  """One-sided DKW with Massart's constant, and Hoeffding: the same number, rounded up."""
  if alpha > 0.5:
    raise ValueError(f'the one-sided DKW bound holds for `alpha` <= 1/2, got alpha={alpha}.')
  return np.sqrt(math.log(1 / alpha) / (2 * total)) * (1 + _RELATIVE)


def _check_thresholds(thresholds):
  thresholds = np.asarray(thresholds, np.float64)
  if thresholds.ndim != 1 or len(thresholds) == 0 or not np.all(np.diff(thresholds) >= 0):
    raise ValueError('`thresholds` must be a float[n] that ascends, n >= 1.')
  return thresholds


def _float32_above(thresholds):
  """The smallest float32 not below each: a score counted above it is above the threshold."""
  nearest = thresholds.astype(np.float32)
  above = np.nextafter(nearest, np.float32(np.inf))
  return np.where(nearest.astype(np.float64) < thresholds, above, nearest)
