"""Training without labels: NT-Xent by loops, turns that are told apart, labels that nothing reads."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import configs, data, train

RNG = np.random.default_rng(0)


def by_loops(a, b, temperature):
  """(loss, share of nearest partners), in float64."""
  vectors = [v / np.linalg.norm(v) for v in np.concatenate([a, b]).astype(np.float64)]
  losses, nearest = [], []
  for i, v in enumerate(vectors):
    partner = (i + len(a)) % len(vectors)
    others = [j for j in range(len(vectors)) if j != i]
    odds = {j: np.exp(np.dot(v, vectors[j]) / temperature) for j in others}
    losses.append(-np.log(odds[partner] / sum(odds.values())))
    nearest.append(max(odds, key=odds.get) == partner)
  return np.mean(losses), np.mean(nearest)


@pytest.mark.parametrize('temperature', [0.1, 0.5, 2.0])
def test_nt_xent_by_loops(temperature):
  a = RNG.normal(size=(6, 3)).astype(np.float32)
  b = (a + RNG.normal(0, 1, (6, 3))).astype(np.float32)
  loss, share = train.nt_xent(jnp.asarray(a), jnp.asarray(b), temperature=temperature)
  expected = by_loops(a, b, temperature)
  assert float(loss) == pytest.approx(expected[0], rel=1e-5)
  assert float(share) == pytest.approx(expected[1]) and 0 < expected[1] < 1


def test_nt_xent_of_a_vanishing_vector_has_a_gradient():
  a, b = jnp.zeros((2, 3)), jnp.eye(3)[:2]
  slope = jax.grad(lambda a: train.nt_xent(a, b, temperature=0.5)[0])(a)
  assert np.isfinite(slope).all()


def test_rotnet_asks_for_the_turn():
  """A network that sees where the bright corner went is always right; its loss is known."""
  x = (
    jnp.zeros((5, 4, 4, 1)).at[:, 0, 0].set(1.0)
  )  # Upper left; turned against the clock: lower left, ...
  corners = ((0, 0), (3, 0), (3, 3), (0, 3))
  seen = []

  def apply(images, training):
    seen.append(images.shape)
    return jnp.stack([2 * images[:, i, j, 0] for i, j in corners], axis=1), {'training': training}

  y = jnp.array([7, -1, 0, 0, 0])  # No labels.
  loss, (metrics, statistics) = train.rotnet().loss(None, apply, x, y, 0)
  assert seen == [(20, 4, 4, 1)] and statistics == {'training': True}
  assert float(metrics['accuracy']) == 1
  assert float(loss) == pytest.approx(np.log(1 + 3 * np.exp(-2)), rel=1e-6)
  with pytest.raises(ValueError, match='needs a network of 4 outputs'):
    train.rotnet().loss(None, lambda x, t: (x[:, :, 0, 0][:, :3], {}), x, y, 0)


def test_simclr_pairs_two_views_of_each_image():
  """Its loss is NT-Xent of the network's outputs, here means of colours; a view depends on its own image
  and key alone."""
  x = jnp.asarray(RNG.uniform(size=(4, 8, 8, 3)), jnp.float32)
  keys, objective = jax.random.split(jax.random.key(0), 4), train.simclr(temperature=0.5)

  def apply(views, training):
    assert training
    return jnp.pad(views.mean(axis=(1, 2)), ((0, 0), (0, 125))), {'views': views}

  run = jax.jit(lambda keys, x: objective.loss(keys, apply, x, None, 0))
  loss, (_, statistics) = run(keys, x)
  views = np.asarray(statistics['views'])
  means = views.mean(axis=(1, 2))
  assert float(loss) == pytest.approx(by_loops(means[:4], means[4:], 0.5)[0], rel=1e-5)
  assert len({view.tobytes() for view in views}) == 8
  others = np.asarray(run(keys, x.at[:2].set(0.5))[1][1]['views']).reshape(2, 4, 8, 8, 3)
  views = views.reshape(2, 4, 8, 8, 3)
  np.testing.assert_array_equal(others[:, 2:], views[:, 2:])
  assert not np.array_equal(others[:, :2], views[:, :2])


def trained(out, data_dir, objective):
  config = configs.Train(
    out=pathlib.Path(out), dataset='digits', data_dir=data_dir, method='none', sigma=0.0, objective=objective,
    batch_size=32, num_epochs=1, max_steps=3, warmup_epochs=0.0,
  )  # fmt: skip
  return jax.tree.map(np.asarray, train.run(config, None).variables)


@pytest.mark.parametrize('objective', train.SELF_SUPERVISED)
def test_labels_change_no_bit(objective, data_dir, tmp_path, monkeypatch):
  """Three steps on digits, and three with all labels permuted."""
  first = trained(tmp_path / 'first', data_dir, objective)
  load, permuted = data.load, []

  def loaded(*arguments, **options):
    images = load(*arguments, **options)
    labels = np.random.default_rng(1).permutation(images.labels)
    permuted.append(np.mean(labels != images.labels))
    return images._replace(labels=labels)

  monkeypatch.setattr(data, 'load', loaded)
  second = trained(tmp_path / 'second', data_dir, objective)
  assert permuted and min(permuted) > 0.8
  jax.tree.map(np.testing.assert_array_equal, first, second)
  outputs = first['params']['Dense_1']['bias'].shape
  assert outputs == (train.SELF_SUPERVISED[objective],)
  again = train.load_run(tmp_path / 'second').variables['params']
  np.testing.assert_array_equal(again['Dense_1']['kernel'], first['params']['Dense_1']['kernel'])


def test_held_out_labels_are_refused(data_dir, tmp_path):
  config = configs.Train(
    out=tmp_path / 'out', data_dir=data_dir, method='none', objective='rotnet', validation=50
  )
  with pytest.raises(ValueError, match='`validation` chooses a checkpoint by labels'):
    train.run(config, None)


@pytest.mark.parametrize(
  'call, word',
  [
    (lambda: train.simclr(temperature=0.0), '`temperature` must be positive'),
    (lambda: train.simclr(scale=0.0), '`scale` is a share'),
    (
      lambda: train.rotations(jnp.zeros((2, 3, 1))),
      r'square images \[H, H, C\], got shape \(2, 3, 1\)',
    ),
  ],
)
def test_bad_arguments(call, word):
  with pytest.raises(ValueError, match=word):
    call()
