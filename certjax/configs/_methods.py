"""The one table of methods. The command line, the README, the audit and the protocol tests read
it; a test fails for a method that lacks a column."""

from collections.abc import Callable
from typing import NamedTuple


class Method(NamedTuple):
  """One certification method.

  Attributes:
    factory: `(**parameters) -> Smoothing` (it imports what it needs when called).
    title: one line, for help and README.
    norm, unit: of the radius.
    quantifier: 'probability 1 - alpha per image', or 'exact'.
    assumptions: what the certificate takes for granted.
    audit: the attack that tries to break it, a name in `certjax.attacks`.
    oracle: the test that checks it against a closed form or brute force.
    preset: a preset of `certjax train` that trains for it.
    reference: paper.
  """

  factory: Callable
  title: str
  norm: str
  unit: str
  quantifier: str
  assumptions: str
  audit: str
  oracle: str
  preset: str
  reference: str


def _gaussian(*, sigma):
  from certjax import smoothing

  return smoothing.gaussian(sigma=sigma)


METHODS = {
  'gaussian': Method(
    factory=_gaussian,
    title='Gaussian randomized smoothing',
    norm='l2',
    unit='pixel value',
    quantifier='probability 1 - alpha per image',
    assumptions='float32 normal noise from a counter-based generator; a deterministic model',
    audit='pgd',
    oracle='tests/certify/randomized_test.py::test_linear_classifier_exceeds_its_distance_rarely',
    preset='digits',
    reference='Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918)',
  ),
}


def build_smoothing(method, **parameters):
  """The `Smoothing` of a row of the method table.

  Args:
    method: a key of `METHODS`.
    **parameters: of its factory, such as `sigma`.

  Raises:
    ValueError: for an unknown method, with the known ones.

  Example:
    >>> build_smoothing('gaussian', sigma=0.25).norm
    'l2'
  """
  if method not in METHODS:
    raise ValueError(f'`method` must be one of {", ".join(METHODS)}; got {method!r}.')
  return METHODS[method].factory(**parameters)
