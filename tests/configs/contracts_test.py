"""Contract cards: no field is missing, and what they say of balls, boxes and norms is what the code does."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from certjax import bounds, certify, configs, smoothing
from certjax.certify import ABSTAIN
from certjax.configs import _clauses
from certjax.evaluate import _poisoning

EACH = pytest.mark.parametrize('name', [*configs.METHODS, *configs.POISONING])
SHAPE = (8, 8, 1)
NORMS = (
  'l0',
  'l1',
  'l2',
  'l2.5',
  'l3',
  'linf',
  'l0.5',
  'patch',
  'wasserstein-l1',
  'wasserstein-l2',
)


def made(name, **options):
  """The factory's product at a small shape."""
  takes = configs.METHODS[name].factory.takes
  sizes = {'sigma': 0.25, 'eps': 0.1, 'side': 2, 'pixels': 2}
  sizes = {size: value for size, value in sizes.items() if takes(size)}
  return configs.build_smoothing(name, shape=SHAPE, **sizes, **options)


@EACH
def test_every_card_has_every_field(name):
  card = configs.contract(name)
  for field in configs.TERMS:
    texts = getattr(card, field) if field == 'voids' else [getattr(card, field)]
    assert texts and all(isinstance(text, str) and len(text) > 4 for text in texts), field
    assert not any('{' in text or text.endswith('.') for text in texts), field
  assert set(configs.TERMS) | {'method', 'title'} == set(card._fields)
  assert card.ball.startswith('closed: ')
  text = ' '.join(configs.contract_text(card).split())
  for term, said in configs.contract_rows(card):
    assert term in text and ' '.join(said.split()) in text


def test_all_rules_against_poison_have_a_card():
  assert set(configs.POISONING) == set(_poisoning.METHODS)


@pytest.mark.parametrize('name', configs.METHODS)
def test_cards_exist_in_the_norms_that_the_factory_takes(name):
  for norm in NORMS:
    try:
      takes = made(name, norm=norm).norm == norm
    except ValueError:
      takes = norm == configs.METHODS[name].norm  # A factory of one norm has no such parameter.
    if takes:
      assert '{' not in configs.contract(name, norm=norm).threat
    else:
      with pytest.raises(ValueError, match='`norm` of'):
        configs.contract(name, norm=norm)


def test_cards_of_runs():
  config = {'method': 'gaussian'}
  header = {'config': config, 'norm': 'linf', 'unit': 'pixel value', 'alpha': 0.01}
  card = configs.contract_of(header)
  assert "||x' - x||_inf" in card.threat and '(alpha = 0.01)' in card.guarantee
  assert configs.contract_of({**header, 'config': {'method': 'dpa'}}).unit.endswith('samples')
  assert configs.contract_of(None) is None and configs.contract_of({'norm': 'l2'}) is None
  with pytest.raises(ValueError, match='`method` must be one of gaussian.*run-off; got'):
    configs.contract('gauss')


def check_inside(name):
  """Strictly below the theorem's radius in 50 digits, and no label where there is none."""
  law = made(name)
  theorem = {
    'gaussian': lambda p: mpmath.mpf(0.25) * mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1),
    'uniform': lambda p: mpmath.sqrt(3) * mpmath.mpf(0.25) * (2 * p - 1),
    'splitting': lambda p: mpmath.sqrt(3) * mpmath.mpf(0.25) * (2 * p - 1),
    'laplace': lambda p: -mpmath.mpf(0.25) / mpmath.sqrt(2) * mpmath.log(2 * (1 - p)),
  }.get(name)
  previous = 0.0
  for p in (0.6, 0.75, 0.9, 0.999):
    radius = float(law.radius(p, x=np.ones(SHAPE)))
    assert radius > previous
    previous = radius
    if theorem:
      with mpmath.workdps(50):
        exact = theorem(mpmath.mpf(p))
        assert exact * (1 - mpmath.mpf(10) ** -12) < radius < exact
  proof = certify.from_votes(law, [0, 0], [[500, 500], [900, 100]], num_samples=1000)
  assert proof.label.tolist() == [ABSTAIN, 0] and proof.radius[0] == 0 < proof.radius[1]


def check_counted(name):
  """The recorded whole number holds by exact rationals and the next does not; 0 is a certificate."""
  law, p = made(name), 0.9999
  radius = int(law.radius(p))
  if name == 'ablation':
    holds = lambda r: Fraction(p) > Fraction(1, 2) + smoothing.ablation_change(64, 3, r)
  elif name == 'discrete':
    holds = lambda r: Fraction(p) > smoothing.discrete_threshold(0.2, 255, r)
  else:
    met = {
      'random-bands': lambda m: Fraction(min(m + 1, 8), 8),
      'random-blocks': lambda m: Fraction(min(m + 2, 8) ** 2, 64),
    }[name]
    holds = lambda m: Fraction(p) > Fraction(1, 2) + met(m)
  assert (radius == 0 or holds(radius)) and not holds(radius + 1)
  proof = certify.from_votes(law, [0, 0], [[560, 440], [500, 500]], num_samples=1000)
  assert proof.label.tolist() == [0, ABSTAIN] and proof.radius[0] == 0


def check_stepped(name):
  """A vote a step: as many votes as the radius has steps turn nothing, one more does."""
  views = made(name)
  for counts in ([9, 2, 2], [2, 9, 2], [4, 1, 8]):
    proof = views.decide(counts)
    top, rival = int(proof.label), 0 if int(proof.label) != 0 else 1
    steps = round(float(proof.radius) * 255)
    assert Fraction(float(proof.radius)) <= Fraction(steps, 255)
    turned = lambda k, top=top, rival=rival, counts=counts: np.argmax(
      np.array(counts) - k * np.eye(3, dtype=int)[top] + k * np.eye(3, dtype=int)[rival]
    )
    assert turned(steps) == top and turned(steps + 1) != top


def check_votes(name):
  """A square of the recorded side is covered; with no majority the label still stands, with radius 0."""
  views = made(name)
  votes = np.zeros((views.num_views, 3), bool)
  votes[:, 1] = True
  proof = views.decide(votes)
  assert proof.label == 1 and proof.radius >= 1 and float(proof.radius).is_integer()
  votes[::2] = [True, False, False]
  split = views.decide(votes)
  assert split.label in (0, 1) and split.radius == 0
  assert views.decide(np.zeros_like(votes)).label == ABSTAIN


def check_sums(name):
  options = {'mask': (1, 1), 'windows': [(1, 1)]}
  ones = np.ones((2, 2))
  scored = lambda rival: np.stack([ones, rival * ones], 2)
  # (4 - 1) - 1 against 4 r - r: a tie at r = 2/3, which class 0 wins and class 1 does not.
  assert certify.patch_from_masking(scored(0.5), **options).radius == 1
  tie = np.zeros((2, 2, 2))
  tie[0, :, 0] = tie[1, :, 1] = 1.0
  proof = certify.patch_from_masking(tie, **options)
  assert proof.label == 0 and proof.radius == 0
  assert made(name).unit == 'patch side'


def check_margin(name):
  del name
  logits = np.array([[2.0, 0.5, -1.0], [1.0, 1.0, 0.0]])
  proof = certify.margin(logits, lipschitz=3.0)
  assert proof.label.tolist() == [0, 0] and proof.radius[1] == 0
  with mpmath.workdps(50):
    exact = mpmath.mpf(1.5) / (3 * mpmath.sqrt(2))
    assert exact * (1 - mpmath.mpf(10) ** -10) < float(proof.radius[0]) < exact


def line(offset, x):
  """Class 0 while x + offset > 1/4."""
  return jnp.stack([x.sum((1, 2, 3)) + offset, 0.25 + 0 * x[:, 0, 0, 0]], axis=1)


def check_verified(name):
  """One pixel of 1/2: the boundary lies at exactly 1/4, and is no part of what is proved."""
  x, at = np.full((1, 1, 1, 1), 0.5), lambda offset: jax.tree_util.Partial(line, np.float32(offset))
  if name in ('patch-ibp', 'sparse-ibp'):  # The pixel may become 0, but not less.
    verify = {'patch-ibp': bounds.verify_patch, 'sparse-ibp': bounds.verify_sparse}[name]
    inside, edge = verify(at(0.5), x, 1), verify(at(0.25), x, 1)
    assert (inside.label, inside.radius) == (0, 1) and (edge.label, edge.radius) == (0, 0)
    return
  bound = bounds.interval if name == 'ibp' else bounds.crown
  label = lambda offset, eps: bounds.verify(at(offset), x, eps, bound=bound).label[0]
  assert label(0, 0.2499) == 0 and label(0, 0.25) == ABSTAIN
  assert label(0.5, 0.6) == 0  # Nothing below 0 is asked for.


CHECKS = {
  _clauses.INSIDE: check_inside, _clauses.COUNTED: check_counted, _clauses.STEPPED: check_stepped,
  _clauses.VOTES: check_votes, _clauses.SUMS: check_sums, _clauses.MARGIN: check_margin,
  _clauses.VERIFIED: check_verified,
}  # fmt: skip


@pytest.mark.parametrize('name', configs.METHODS)
def test_the_ball_is_what_the_card_says(name):
  CHECKS[configs.METHODS[name].ball](name)


@pytest.mark.parametrize('name', ['dpa', 'ss-dpa'])
def test_the_certified_number_of_samples_is_covered(name):
  assert 'covered itself' in configs.contract(name).ball
  votes = np.array([0] * 6 + [1] * 3)
  radius = int(certify.aggregate(votes, 2).radius)
  turned = lambda k: np.argmax(np.bincount(np.r_[votes[k:], [1] * k], minlength=2))
  assert turned(radius) == 0 and turned(radius + 1) == 1


def test_help_ends_with_the_card(command):
  said = command('certify', '--method', 'ablation', '--help')
  assert said.code == 0 and said.out.rstrip().endswith(
    configs.contract_text(configs.contract('ablation'))
  )
  said = command('certify', '--norm=linf', '--method=gaussian', '-h')
  assert configs.contract_text(configs.contract('gaussian', norm='linf')) in said.out
  said = command('poison', '--spread', 4, 'finite-aggregation', '--help')
  assert configs.contract_text(configs.POISONING['finite-aggregation']) in said.out
  assert 'Contract of' not in command('certify', '--help').out
  for bad in (('--method', 'gauss'), ('--method', 'lipschitz', '--norm', 'linf')):
    said = command('certify', *bad, '--help')
    assert said.code == 2 and said.err.startswith('certjax: error: `') and not said.out
