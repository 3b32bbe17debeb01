"""Attacks: one factory a file, each returns `(key, model_fn, x, y) -> x_adv`."""

from certjax.attacks._cra import Worst, cra, worst_in_ball
from certjax.attacks._ddn import ddn
from certjax.attacks._expected import expected
from certjax.attacks._loss import cross_entropy, margin
from certjax.attacks._pgd import pgd

__all__ = ['Worst', 'cra', 'cross_entropy', 'ddn', 'expected', 'margin', 'pgd', 'worst_in_ball']
