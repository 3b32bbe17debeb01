"""How many pixels turn a smoothed classifier: the pointwise search, and new votes that judge its points.

A classifier that counts votes answers a point by the same votes whenever it is asked, so that a search with
few votes bends to their chance: it stops at points that those votes alone take for misclassified. Here new
votes, and more of them, judge the points that the search went through.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from certjax import attacks, certify


class Confirmed(NamedTuple):
  """What the search found of each image, and what new votes say.

  Attributes:
    search: the `attacks.Sparse` of the search.
    confirmed: the sparsest of its points that new votes confirm.
    ends: bool[B], whether these votes confirm the end of the search.
    again: bool[B], whether a second set of new votes agrees about the confirmed points.
  """

  search: Any
  confirmed: Any
  ends: np.ndarray
  again: np.ndarray


def pointwise_of_votes(
  model_fn, law, x, y, *, num_votes, num_judges, alpha, seed=0, chunk=250, **search
) -> Confirmed:
  """Pointwise against PREDICT, where another class or an abstention is what the adversary wants.

  Args:
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`.
    law: a `Smoothing`.
    x: float32[B, H, W, C] in [0, 1].
    y: int[B], the labels.
    num_votes: of a question of the search.
    num_judges: of a judgement.
    alpha: of PREDICT, the two-sided binomial test of the two largest counts.
    seed: of the search and its votes; the judges draw by the next two.
    chunk: views that are evaluated at once.
    **search: of `attacks.pointwise_search`.

  Returns:
    A `Confirmed`.

  References:
    Schott et al. 2019 (arXiv:1805.09190); Levine & Feizi 2020 (arXiv:1911.09272), their protocol.
  """
  x, y, known = np.asarray(x), np.asarray(y), [{} for _ in y]

  def turned(seed, points, rows, votes):
    if not len(rows):
      return np.zeros(0, bool)
    counts = certify.votes(
      jax.random.key(seed), model_fn, law, points, index=rows, num_samples=votes, slots=len(y),
      chunk=chunk,
    )  # fmt: skip
    return certify.label_from_votes(counts, alpha=alpha) != y[rows]

  def is_adversarial(x):
    x = np.asarray(x)
    points = [image.tobytes() for image in x]
    new = np.array([row for row, point in enumerate(points) if point not in known[row]], int)
    for row, answer in zip(new, turned(seed, x[new], new, num_votes), strict=True):
      known[row][points[row]] = answer
    return np.array([known[row][point] for row, point in enumerate(points)])

  found = attacks.pointwise_search(jax.random.key(seed), is_adversarial, x, **search)
  visited = [_by_size(known[row], x[row]) for row in range(len(y))]
  ends = sparsest_confirmed(
    visited, lambda points, rows: turned(seed + 1, points, rows, num_judges)
  )
  success = np.array([end is not None for end in ends])
  points = np.stack([image if end is None else end for image, end in zip(x, ends, strict=True)])
  changed = np.where(success, _changed(points, x), 0)
  again, rows = np.zeros(len(y), bool), np.flatnonzero(success)
  again[rows] = turned(seed + 2, points[rows], rows, num_judges)
  every = np.arange(len(y))
  return Confirmed(
    found, attacks.Sparse(points, success, changed, found.num_queries),
    turned(seed + 1, np.asarray(found.x), every, num_judges), again,
  )  # fmt: skip


def sparsest_confirmed(visited, judge) -> list:
  """The first point of each list that `judge` confirms, by bisection, or None.

  What a bisection leaves out may hold a sparser one: the result is an upper bound, as the search's.

  Args:
    visited: a list of points for each image, from few changed pixels to many.
    judge: `(points, rows) -> bool[R]`, of one point of each of these images.

  Example:
    >>> numbers = [[1.0, 2.0, 3.0, 4.0], [1.0], []]
    >>> sparsest_confirmed(numbers, lambda points, rows: points > 2.5)
    [3.0, None, None]
  """
  low = np.full(len(visited), -1)  # Not confirmed.
  high = np.array([len(points) for points in visited])  # Confirmed, or past the end.
  while len(rows := np.flatnonzero(high - low > 1)):
    middle = (low + high) // 2
    answers = judge(np.stack([visited[row][middle[row]] for row in rows]), rows)
    high[rows] = np.where(answers, middle[rows], high[rows])
    low[rows] = np.where(answers, low[rows], middle[rows])
  pairs = zip(visited, high, strict=True)
  return [points[place] if place < len(points) else None for points, place in pairs]


def median_changed(found) -> float:
  """The median number of changed pixels of an `attacks.Sparse`; an image that was not turned counts as inf.

  Example:
    >>> found = attacks.Sparse(None, np.array([True, True, False]), np.array([3, 5, 0]), None)
    >>> median_changed(found)
    5.0
  """
  return float(np.median(np.where(found.success, found.num_changed, np.inf)))


def _changed(points, x):
  """Pixels that differ, of each image."""
  return (points != x).any(axis=-1).sum(axis=(1, 2))


def _by_size(known, image):
  """The points of one image that its search took for adversarial, from few changed pixels to many."""
  points = [
    np.frombuffer(point, image.dtype).reshape(image.shape) for point in known if known[point]
  ]
  sizes = [int(_changed(point[None], image[None])[0]) for point in points]
  return [points[place] for place in np.argsort(sizes, kind='stable')]
