"""Contract cards: what the certificate of a method says, about whom, and when it says nothing.

The sentences stand in the method table; this file only sets them side by side, for `--help`, the report and the
documentation. The four rules against poisoned training sets have their rows here, for `certjax poison` has no other
use for them.
"""

import textwrap
from typing import NamedTuple

from certjax.configs._methods import METHODS

_UNITS = {
  'pixel value': 'pixel values in [0, 1]; 1/255 is one grey level of 8 bits',
  'pixels': 'whole pixels',
  'features': 'whole coordinates: single channels of pixels',
  'patch side': 'side of the square in whole pixels',
  'mass': 'shares of the mass times pixels: 1 is all the mass, moved by one pixel',
  'samples': 'whole training samples',
}
_GUARANTEES = {
  'probability 1 - alpha per image': (
    'holds for each image with probability at least 1 - alpha over the sampled noise (alpha = {alpha}). Errors '
    'add up over images: that all certificates of a table hold at once is not claimed'
  ),
  'exact': 'holds for certain: nothing is sampled',
}
_ALPHA = '0.001 unless --alpha says otherwise'
_GROUNDS = {'wasserstein-l1': 'the distance |dh| + |dw|', 'wasserstein-l2': 'the straight distance'}


class Contract(NamedTuple):
  """The card of one method.

  Attributes:
    method: its name.
    title: one line.
    classifier: whose label is proved.
    threat: the set of x' for which it is proved.
    unit: of the radius.
    ball: whether the radius itself is covered, how it is rounded, and what radius 0 says.
    guarantee: for certain, or with which probability.
    assumptions: what the certificate takes for granted.
    voids: what it no longer holds under, a sentence each.
    audit: the attack that tries to break it.
    oracle: the test that checks it against a closed form or brute force.
    reference: paper.
  """

  method: str
  title: str
  classifier: str
  threat: str
  unit: str
  ball: str
  guarantee: str
  assumptions: str
  voids: tuple
  audit: str
  oracle: str
  reference: str


TERMS = {
  'classifier': 'Classifier',
  'threat': 'Threat set',
  'unit': 'Unit of the radius',
  'ball': 'Ball',
  'guarantee': 'Guarantee',
  'assumptions': 'Takes for granted',
  'voids': 'Voided by',
  'audit': 'Attack that tries to break it',
  'oracle': 'Test that checks it',
  'reference': 'Source',
}
"""Field of a `Contract` -> how a card names it."""


def contract(method, *, norm=None, unit=None, alpha=None) -> Contract:
  """The contract card of a method.

  Args:
    method: a row of the method table, or a rule of `certjax poison`.
    norm: of the certificate, None for the method's own.
    unit: that of a record's header, None for the method's own.
    alpha: failure probability, None where it is not known.

  Returns:
    A `Contract`.

  Raises:
    ValueError: for an unknown method, or a norm in which it proves nothing.

  Example:
    >>> contract('gaussian', norm='linf').threat
    "every x' with ||x' - x||_inf <= radius: real pixel values, inside [0, 1] or not"
  """
  if method in POISONING:
    return POISONING[method]
  if method not in METHODS:
    known = ', '.join((*METHODS, *POISONING))
    raise ValueError(f'`method` must be one of {known}; got {method!r}.')
  row = METHODS[method]
  norm = norm or row.norm
  if norm not in row.norms and not (row.norms == ('lp',) and _is_power(norm)):
    raise ValueError(f'`norm` of {method} must be one of {", ".join(row.norms)}; got {norm!r}.')
  known = _ALPHA if alpha is None else f'{alpha:g}'
  return Contract(
    method, row.title, row.classifier, _threat(row.threat, norm),
    _UNITS[unit or row.unit], row.ball, _GUARANTEES[row.quantifier].format(alpha=known), row.assumptions, row.voids,
    f'attacks.{row.audit}', row.oracle, row.reference,
  )  # fmt: skip


def contract_of(header) -> Contract | None:
  """The contract card of a run.

  Args:
    header: of its records, or None.

  Returns:
    A `Contract`, or None where the header names no method, as that of a log in the field's TSV.

  Example:
    >>> contract_of({'config': {'method': 'ibp'}, 'norm': 'l2', 'unit': 'pixel value'}).guarantee
    'holds for certain: nothing is sampled'
  """
  header = header or {}
  method = (header.get('config') or {}).get('method')
  if method not in METHODS and method not in POISONING:
    return None
  named = {name: header.get(name) for name in ('norm', 'unit', 'alpha')}
  return contract(method, **named)


def contract_rows(card) -> list:
  """A card as (term, text) pairs, in the order in which it is read; what voids it is one pair each.

  Example:
    >>> contract_rows(contract('lipschitz'))[0]
    ('Classifier', 'the network of the stored weights, in exact arithmetic, normalisation included')
  """
  rows = []
  for name, term in TERMS.items():
    value = getattr(card, name)
    rows += [(term, text) for text in (value if isinstance(value, tuple) else (value,))]
  return rows


def contract_text(card) -> str:
  """A card as lines for a terminal.

  Example:
    >>> print(contract_text(contract('ibp')).splitlines()[0])
    Contract of ibp: Interval bounds (IBP)
  """
  lines = [f'Contract of {card.method}: {card.title}']
  before = None
  for term, text in contract_rows(card):
    if term != before:
      lines.append(f'  {term}')
    lines += textwrap.wrap(
      f'- {text}' if isinstance(getattr(card, _FIELDS[term]), tuple) else text,
      100, initial_indent='    ', subsequent_indent='    ', break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    before = term
  return '\n'.join(lines)


_FIELDS = {term: name for name, term in TERMS.items()}


def _is_power(norm):
  """Whether a norm is one of l1, l2, l2.5, ..., linf."""
  power = norm.removeprefix('l')
  digits = power.replace('.', '', 1)
  return norm.startswith('l') and (power == 'inf' or (digits.isdigit() and float(power) >= 1))


def _threat(sentence, norm):
  ground = _GROUNDS.get(norm, '')
  distance = "W(x / m, x' / m)" if ground else f"||x' - x||_{norm.removeprefix('l')}"
  return sentence.format(distance=distance, ground=ground)


_ADDED = (
  'every training set that differs from this one in at most radius samples: added or removed counts 1, an image '
  'replaced 2, a label changed 1. The test image is not touched'
)
_FLIPPED = (
  'every training set whose labels differ from these in at most radius places; its images are the same ones, and so '
  'is the test image'
)
_WHOLE = (
  'closed: the radius is a whole number, and is covered itself; votes are compared as integers, ties included. '
  'Radius 0 with a label is the answer of this training set'
)
_TRAINING = (
  'deterministic training, a function of the samples of one part and of settings, `capacity` among them, that are '
  'the same for every training set'
)
_DEALT = (
  'members that saw more than their parts: features learned from the whole training set, settings tuned on it, or '
  'a part that depends on other samples'
)
_RELABELLED = 'features or parts of the images that depend on labels'
_RETRAINED = (
  'training that is not repeated bit for bit: another library, device, order of sums or random draw'
)


def _poisoning(method, title, classifier, oracle, reference, threat=_ADDED, voids=_DEALT):
  return Contract(
    method, title, classifier, threat, _UNITS['samples'], _WHOLE, _GUARANTEES['exact'],
    _TRAINING, (voids, _RETRAINED), 'poisoning.greedy_attack', f'tests/certify/aggregation_test.py::{oracle}',
    reference,
  )  # fmt: skip


_PLAIN = 'test_partition_aggregation_is_the_best_possible_rule'
_MOST_VOTED = (
  'the ensemble: the class that most members answer, the lowest of equals; a member saw one part'
)
POISONING = {
  'dpa': _poisoning(
    'dpa', 'Deep partition aggregation', _MOST_VOTED, _PLAIN, 'Levine & Feizi 2021 (arXiv:2006.14768)'
  ),
  'ss-dpa': _poisoning(
    'ss-dpa', 'Partition aggregation against flipped labels', _MOST_VOTED, _PLAIN,
    'Levine & Feizi 2021 (arXiv:2006.14768)', _FLIPPED, _RELABELLED,
  ),
  'finite-aggregation': _poisoning(
    'finite-aggregation', 'Finite aggregation',
    'the ensemble: the class that most members answer, the lowest of equals; each sample reached the members of its '
    'bucket alone', 'test_finite_aggregation_against_all_poisonings',
    'Wang, Levine & Feizi 2022 (arXiv:2202.02628)',
  ),
  'run-off': _poisoning(
    'run-off', 'Run-off election',
    'the ensemble: the winner of an election in two rounds; a member saw one part',
    'test_run_off_election_against_all_poisonings',
    'Rezaei, Banihashem, Chegini & Feizi 2023 (arXiv:2302.02300)',
  ),
}  # fmt: skip
"""Cards of the rules of `certjax poison`."""
