"""Defences and their attacks: the chain is the network, gradients are hidden or shown, shares are counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import configs, data, defenses, reproduce
from certjax.reproduce import _heuristic_defenses
from certjax.reproduce._heuristic_defenses import made, network, points, right, stages

pytestmark = pytest.mark.usefixtures('many_programs')

TABLES = reproduce.Attacks(
  configs.threat_of, configs.build_attack, configs.unit_of, {'digits': {'linf': 0.2}}
)
SMALL = {'num_images': 20, 'num_steps': 3, 'training_steps': 120}


@pytest.fixture(scope='module')
def request_in(data_dir, tmp_path_factory):
  """A quick request."""
  out = tmp_path_factory.mktemp('defenses')
  return reproduce.Request('quick', out, 1, data_dir, attacks=TABLES)


@pytest.fixture(scope='module')
def networks(request_in):
  """(plain, of thermometer codes), after a few steps."""
  return tuple(network(request_in, SMALL['training_steps'], levels) for levels in (None, 10))


@pytest.fixture(scope='module')
def images(request_in):
  """(x, y) of 20 test images."""
  found = data.load('digits', 'test', data_dir=request_in.data_dir, indices=range(0, 500, 25))
  return jnp.asarray(data.to_float(found.images)), jnp.asarray(found.labels)


def test_the_chain_is_the_network(networks, images):
  hidden, head = stages(networks[0])
  np.testing.assert_allclose(head(hidden(images[0])), networks[0](images[0]), atol=1e-4)


def test_the_network_of_codes_reads_them(networks, images):
  coded = defenses.transformed(networks[1], defenses.thermometer(levels=10))
  assert np.mean(coded(images[0]).argmax(1) == images[1]) > 0.6


@pytest.mark.parametrize('name', ['thermometer', 'bit depth'])
def test_what_is_seen_is_the_classifier_with_a_gradient(networks, images, name):
  one = made(*networks)[name]
  np.testing.assert_array_equal(one.stands(images[0]), one.seen(images[0]))
  slope = lambda fn: np.abs(jax.grad(lambda x: fn(x)[:, 0].sum())(images[0])).max()
  assert slope(one.stands) == 0 and slope(one.seen) > 0


def test_a_random_classifier_is_right_in_a_share_of_draws(images):
  coin = lambda keys, x: jax.nn.one_hot(jax.vmap(lambda key: jax.random.randint(key, (), 0, 2))(keys), 2)  # fmt: skip
  zeros = jnp.zeros(400, jnp.int32)
  share = right(jax.random.key(0), coin, True, jnp.zeros((400, 1)), zeros)
  assert set(np.round(10 * share)) > {3.0, 5.0, 7.0}
  # 4,000 fair coins: 5 standard errors are 0.04.
  assert abs(share.mean() - 0.5) < 0.04
  certain = lambda x: jax.nn.one_hot(jnp.arange(20) % 2, 2)
  found = right(jax.random.key(0), certain, False, images[0], zeros[:20])
  assert found.tolist() == [1.0, 0.0] * 10


def test_rows_are_counts_and_the_adaptive_attack_sees_through(request_in, networks, images, monkeypatch):  # fmt: skip
  monkeypatch.setattr(
    _heuristic_defenses, 'network',
    lambda request, steps, levels: networks[levels is not None],
  )  # fmt: skip
  result = _heuristic_defenses.run(request_in, names=('bit depth', 'resize and pad'), **SMALL)
  rows = {row.number: row for row in result.rows}
  x, y = images
  one, key = made(*networks)['bit depth'], jax.random.key(1)
  for number, fn in (
    ('bit depth, accuracy under PGD through it', one.stands),
    ('bit depth (Guo et al.), accuracy under an adaptive attack', one.seen),
  ):
    x_adv = points(0.2, 3, key, fn, False, x, y, 1)
    assert np.abs(x_adv - x).max() < 0.2001
    assert rows[number].ours == np.mean(np.asarray(one.stands(x_adv)).argmax(1) == y)
  blind, seen = (rows[n].ours for n in list(rows)[3:5])
  assert seen < blind <= rows['bit depth, clean accuracy'].ours
  adaptive = rows['resize and pad (Xie et al.), accuracy under an adaptive attack']
  assert adaptive.published.dataset == 'imagenet2012' and adaptive.published.value == 0
  assert adaptive.interval is None and adaptive.setting.endswith('EOT')
  others = [row for row in result.rows if row.ours is None]
  assert {row.published.value for row in others if 'Madry' in row.number} == {0.47}
  assert len(others) == 5 and not any(reproduce.verdict(row) for row in others)
  assert {row.dataset for row in result.rows} == {'digits'}
