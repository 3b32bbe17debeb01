"""AutoAttack: the authors' lists, few classes, the linear optimum, survivors, protocol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, threats
from certjax.attacks import _autoattack

pytestmark = pytest.mark.usefixtures('many_programs')

SHAPE, CLASSES, EPS = (3, 3, 1), 3, 0.04
W = np.random.default_rng(0).normal(size=(9, CLASSES)).astype(np.float32)
SMALL = {'num_steps': 6, 'num_queries': 6}


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


def batch(size=8):
  x = np.random.default_rng(1).uniform(0.3, 0.7, (size, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.argmax(linear(jnp.asarray(x)), axis=1).astype(jnp.int32)


@jax.jit
def run(keys, x, y, eps):
  return attacks.autoattack(threats.linf(eps), **SMALL)(keys, linear, x, y)


def keys():
  return jax.random.split(jax.random.key(0), 8)


def names(threat, version, num_classes=10):
  parts = attacks.autoattack_parts(threat, version, num_classes)
  return {part.name: part.settings for part in parts}


@pytest.mark.parametrize('threat', [threats.linf(0.1), threats.l2(0.5)], ids=['linf', 'l2'])
def test_the_lists_of_the_authors(threat):
  standard = names(threat, 'standard')
  assert list(standard) == ['apgd-ce', 'apgd-t', 'fab-t', 'square']
  assert standard['apgd-ce'] == {'num_restarts': 1, 'loss': 'cross_entropy', 'num_steps': 100}
  assert standard['apgd-t'] == standard['fab-t'] == {'targets': 9, 'num_steps': 100}
  assert standard['square'] == {'num_queries': 5000}
  plus = names(threat, 'plus')
  assert list(plus) == ['apgd-ce', 'apgd-dlr', 'fab', 'square', 'apgd-t', 'fab-t']
  assert [plus[name]['num_restarts'] for name in ('apgd-ce', 'apgd-dlr', 'fab')] == [5, 5, 5]
  assert list(names(threat, 'rand')) == ['apgd-ce', 'apgd-dlr']


def test_the_list_of_l1():
  standard = names(threats.l1(12.0), 'standard')
  assert standard['apgd-ce'] == {
    'num_restarts': 5, 'large_eps': True, 'loss': 'cross_entropy', 'num_steps': 100,
  }  # fmt: skip
  assert standard['apgd-t'] == {'targets': 5, 'large_eps': True, 'num_steps': 100}
  assert standard['fab-t']['targets'] == 9


def test_few_classes():
  """auto-attack's issues 70, 76 and 110: the ratio does not exist, nor do nine other classes."""
  plus = names(threats.linf(0.1), 'plus', num_classes=2)
  assert plus['apgd-dlr']['loss'] == 'margin'
  assert plus['apgd-t']['targets'] == plus['fab-t']['targets'] == 1
  plus = names(threats.linf(0.1), 'plus', num_classes=3)
  assert plus['apgd-dlr']['loss'] == 'dlr' and plus['apgd-t']['targets'] == 2
  x, y = batch(2)
  two = lambda x: linear(x)[:, :2]
  y = jnp.argmax(two(x), axis=1).astype(jnp.int32)
  attack = attacks.autoattack(threats.linf(0.5), version='rand', num_steps=2)
  x_adv = jax.jit(lambda key, x, y: attack(key, two, x, y))(jax.random.key(0), x, y)
  assert (jnp.argmax(two(x_adv), axis=1) != y).all()


def test_breaks_exactly_what_can_be_broken():
  x, y = batch()
  x_adv = np.asarray(run(keys(), x, y, EPS))
  logits = np.asarray(linear(x), np.float64)
  slopes = W.T[None].astype(np.float64) - W.T[np.asarray(y)][:, None]  # [B, K, n]
  worst = logits - logits[np.arange(8), y][:, None] + EPS * np.abs(slopes).sum(axis=2)
  worst[np.arange(8), y] = -np.inf
  breakable = worst.max(axis=1) > 0
  assert 2 <= breakable.sum() <= 6, worst.max(axis=1)
  broken = np.asarray(jnp.argmax(linear(jnp.asarray(x_adv)), axis=1) != y)
  np.testing.assert_array_equal(broken, breakable)


def test_protocol():
  x, y = batch()
  x_adv = np.asarray(run(keys(), x, y, EPS))
  assert np.abs(x_adv - np.asarray(x)).max() <= EPS + 1e-7
  assert x_adv.min() >= 0 and x_adv.max() <= 1
  assert np.array_equal(run(keys(), x, y, 0.0), x)  # Bit for bit.
  turned = np.asarray(run(keys()[::-1], x[::-1], y[::-1], EPS))
  np.testing.assert_array_equal(turned[::-1], x_adv)  # A row knows nothing of the others.
  assert run._cache_size() == 1  # One trace, whatever eps.


def test_a_success_stays_and_a_failure_is_the_best_point(monkeypatch):
  """Parts of our own: the second must not touch what the first broke, nor lose what it gained."""
  x, y = batch(2)
  y = jnp.array([0, 0], jnp.int32)
  first = jnp.array([0.9, 0.4], jnp.float32)  # Breaks row 0, improves row 1.
  second = jnp.array([1.0, 0.3], jnp.float32)  # Would move row 0, and makes row 1 worse.
  part = lambda values: attacks.Part(
    'a', lambda key, model_fn, x, y: jnp.ones_like(x) * values[:, None, None, None], {}
  )
  monkeypatch.setattr(_autoattack, 'autoattack_parts', lambda *_, **__: (part(first), part(second)))
  model_fn = lambda x: jnp.stack([jnp.full(len(x), 0.5), x[:, 0, 0, 0]], axis=1)
  attack = attacks.autoattack(threats.linf(1.0))
  x_adv = jax.jit(lambda key, x, y: attack(key, model_fn, x, y))(jax.random.key(0), 0 * x, y)
  np.testing.assert_array_equal(x_adv[:, 0, 0, 0], first)


def test_bad_arguments():
  with pytest.raises(ValueError, match='`version` must be one of standard, plus, rand, got'):
    attacks.autoattack(threats.linf(0.1), version='fast')
  with pytest.raises(ValueError, match="`threat` must be one of linf, l2, l1, got 'l0'"):
    attacks.autoattack(threats.l0(3))
  with pytest.raises(ValueError, match='num_steps=-1'):
    attacks.autoattack(threats.linf(0.1), num_steps=-1)
  with pytest.raises(ValueError, match='`num_classes` must be at least 2, got 1'):
    attacks.autoattack_parts(threats.linf(0.1), 'standard', 1)
