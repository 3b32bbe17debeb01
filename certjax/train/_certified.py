r"""Certified training: the loss is taken at bounds of the logits over a ball around each image.

The worst logits are 0 for the label y and -m_j for a rival j, where m_j <= f_y(x') - f_j(x') for all
x' of the ball (`_worst_case.py`). The methods differ in how m is bounded: by intervals, linear bounds
through intervals, zonotopes, or the dual of the convex outer polytope.
"""

from certjax import bounds
from certjax.train._copies import Objective
from certjax.train._interval_penalties import SMALLEST, penalty_of
from certjax.train._radius import DEFAULT_EPS, check_shares, growth
from certjax.train._worst_case import over_balls


def ibp(
  *, eps=DEFAULT_EPS, kappa=0.5, exponent=1.0, clean_share=0.0, warmup_steps=0, tightness=0.0,
  balance=0.0, tolerance=0.5,
) -> Objective:  # fmt: skip
  r"""Interval bounds in training (IBP), with the penalties of a short warm-up on request.

    loss = k CE(f(x), y) + (1 - k) CE(worst logits over |x' - x|_inf <= e, y)
           + (1 - e / eps) (t tightness + b balance)

  In the warm-up e grows from 0 to eps and k falls from 1 to kappa, in step. The margins are merged
  into the last layer. The penalties (`_interval_penalties.py`) act in the warm-up only, on the boxes
  before the ReLUs: they keep them narrow, and active and inactive units even. Under several devices
  each takes its own images' means.

  Args:
    eps: radius in pixel values; the ball is cut to [0, 1].
    kappa: final weight of the clean images.
    exponent: of `smooth_ramp`; 1 is linear.
    clean_share: share of the warm-up, at its begin, in which e is still 0.
    warmup_steps: steps until e = eps.
    tightness, balance: t and b, weights of the penalties; 0 leaves them out, 0.5 is the paper's.
    tolerance: ratio (of widths; of inactive to active units) above which nothing is penalised.

  Returns:
    An `Objective`. Metrics: 'accuracy' of the clean images, 'verified' (the share that the training
    bound proves at e) and 'eps'.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = ibp(eps=0.3, kappa=0.5, warmup_steps=2000, clean_share=0.1)
    >>> short = ibp(eps=0.3, tightness=0.5, balance=0.5, warmup_steps=500, exponent=4.0)

  References:
    Gowal et al. 2018 (arXiv:1810.12715); Shi et al. 2021 (arXiv:2103.17268), the penalties: use them
    with a model whose `kernel_init` is 'ibp'.
  """
  margins = lambda model_fn, region, spec, done, keys: bounds.interval(model_fn, region, spec)[0]
  grown = growth(eps, exponent, clean_share, warmup_steps)
  return _penalised(margins, eps, kappa, grown, tightness, balance, tolerance)


def crown_ibp(
  *, eps=DEFAULT_EPS, kappa=0.5, beta=0.0, exponent=1.0, clean_share=0.0, warmup_steps=0,
  tightness=0.0, balance=0.0, tolerance=0.5,
) -> Objective:  # fmt: skip
  r"""CROWN-IBP: one backward pass of linear bounds through intermediate intervals, mixed with IBP.

    m = b m_CROWN-IBP + (1 - b) m_IBP,   b from 1 to beta in the warm-up

  The loss is that of `ibp` at these margins.

  Args:
    eps, kappa, exponent, clean_share, warmup_steps, tightness, balance, tolerance: as in `ibp`.
    beta: final weight of the linear bounds; 0 (large eps) ends as IBP.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = crown_ibp(eps=2 / 255, beta=1.0, warmup_steps=2000, exponent=4.0)

  References:
    Zhang et al. 2020 (arXiv:1906.06316).
  """
  check_shares(beta=beta)

  def margins(model_fn, region, spec, done, keys):
    del keys
    share = 1 - (1 - beta) * done
    # Deviation: a linear bound below the interval's counts as the interval's. And both are computed
    # even where share is 0: convolutions inside `lax.cond` are ten times slower on CPU.
    linear = bounds.crown(model_fn, region, spec, intermediate='interval', upper=False)[0]
    return share * linear + (1 - share) * bounds.interval(model_fn, region, spec)[0]

  grown = growth(eps, exponent, clean_share, warmup_steps)
  return _penalised(margins, eps, kappa, grown, tightness, balance, tolerance)


def diffai(
  *, eps=DEFAULT_EPS, lam=0.5, exponent=1.0, clean_share=0.0, warmup_steps=0
) -> Objective:  # fmt: skip
  r"""Differentiable abstract interpretation (DiffAI), with zonotopes.

    loss = (1 - l) CE(f(x), y) + l CE(worst logits over |x' - x|_inf <= e, y)

  In the warm-up e grows from 0 to eps and l from 0 to lam, in step. Over boxes in place of zonotopes
  it is `ibp` with kappa = 1 - lam.

  For small networks: a zonotope keeps a generator for each of the D pixels and H units before the
  last layer, so a layer of width n costs (D + H) n numbers an image, and as many passes as there are
  generators. For 8 x 8 images and three layers of 100 that is .15 MB an image and layer; for 28 x 28
  images and `ibp-small` 85 MB.

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.
    lam: final weight of the worst logits.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = diffai(eps=0.1, lam=0.5, warmup_steps=2000)

  References:
    Mirman, Gehr & Vechev 2018 (DiffAI): lam 0.1 to 0.5 in their code.
  """
  # Deviation: the margins are bounded, not the logits one by one, and every box is intersected with
  # the interval's.
  check_shares(lam=lam)
  grown = growth(eps, exponent, clean_share, warmup_steps)
  margins = lambda model_fn, region, spec, done, keys: bounds.zonotope(model_fn, region, spec)[0]
  return Objective(over_balls(margins, eps, 1 - lam, grown), None)


def wong_kolter(
  *, eps=DEFAULT_EPS, num_projections=0, exponent=1.0, clean_share=0.0, warmup_steps=0
) -> Objective:  # fmt: skip
  r"""The convex outer polytope: cross-entropy at the bound of Wong & Kolter's dual.

    loss = CE(-J(x), y),   J_j <= f_y(x') - f_j(x') for all |x' - x|_inf <= e

  The dual is the linear bound whose lower line of an unstable ReLU has the slope of the upper one, at
  every layer: one backward pass for each neuron before a ReLU, so for small networks. Random
  projections estimate the boxes of these neurons by a fixed number of forward passes instead; J is
  then no bound, and 'verified' proves nothing.

  Args:
    eps, exponent, clean_share, warmup_steps: as in `ibp`.
    num_projections: random combinations, the same for the images of a device and fresh at every step
      (50 in the paper); 0 is exact.

  Returns:
    An `Objective`, with the metrics of `ibp`.

  Raises:
    ValueError: for a number out of range.

  Example:
    >>> objective = wong_kolter(eps=0.1, warmup_steps=20 * 1200)
    >>> larger = wong_kolter(eps=0.1, num_projections=50, warmup_steps=20 * 1200)

  References:
    Wong & Kolter 2018 (arXiv:1711.00851); Wong et al. 2018 (arXiv:1805.12514), projections.
  """
  # Deviation: the ball is cut to [0, 1], and each exact bound is intersected with the interval's.
  if num_projections < 0 or num_projections != int(num_projections):
    raise ValueError(
      f'`num_projections` is a count, 0 for exact bounds, got num_projections={num_projections}.'
    )
  grown = growth(eps, exponent, clean_share, warmup_steps)

  def margins(model_fn, region, spec, done, keys):
    if not num_projections:
      return bounds.crown(model_fn, region, spec, slope='same', upper=False)[0]
    return bounds.dual(
      model_fn, region, spec, projections=num_projections, key=keys[0], upper=False
    )[0]

  return Objective(over_balls(margins, eps, 0.0, grown), None)


def _penalised(margins, eps, kappa, grown, tightness, balance, tolerance):
  """The mixture of `ibp`, with penalties where one has a weight."""
  check_shares(kappa=kappa)
  penalty = penalty_of(tightness, balance, tolerance)
  smallest = min(SMALLEST, eps) if penalty else 0.0
  loss = over_balls(margins, eps, kappa, grown, penalty=penalty, smallest=smallest)
  return Objective(loss, None)
