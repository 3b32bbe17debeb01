"""Training without the label's best window: closed forms, gradients, a network that learns, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from certjax import models, parallel, train

RNG = np.random.default_rng(0)
CELLS = np.float32(RNG.normal(0, 1, (4, 5, 4, 3)))
Y = np.array([0, 2, 1, 2], np.int32)


class Given(nn.Module):
  """A network whose cells are the image's pixels."""

  def __call__(self, x, train=False):
    return jnp.mean(self.local_logits(x), axis=(1, 2))

  def local_logits(self, x):
    return x


def apply(x, train):
  return Given().apply({}, x, train), {'seen': train}


def value(x, window=2, step=0, **options):
  return train.masked_features(window=window, **options).loss(None, apply, x, Y, step)


def by_hand(cells, window):
  """(loss, masked scores, places of the best windows)."""
  u = np.maximum(cells.astype(np.float64), 0)
  scores, places = u.mean(axis=(1, 2)), []
  for b, y in enumerate(Y):
    boxes = {
      (i, j): u[b, i : i + window, j : j + window, y].sum()
      for i in range(6 - window)
      for j in range(5 - window)
    }
    places.append(max(boxes, key=boxes.get))
    scores[b, y] -= boxes[places[-1]] / 20
  log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
  return -log_p[np.arange(4), Y].mean(), scores, places


@pytest.mark.parametrize('window', [1, 2, 4])
def test_the_loss_in_numpy(window):
  loss, (metrics, statistics) = value(jnp.asarray(CELLS), window)
  expected, masked, _ = by_hand(CELLS, window)
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert float(metrics['masked_accuracy']) == np.mean(masked.argmax(axis=1) == Y)
  whole = np.maximum(CELLS, 0).mean(axis=(1, 2))
  assert float(metrics['accuracy']) == np.mean(whole.argmax(axis=1) == Y)
  assert statistics == {'seen': True}


def test_the_warm_up_leaves_out_a_share():
  whole = np.maximum(CELLS, 0).mean(axis=(1, 2), dtype=np.float64)
  _, masked, _ = by_hand(CELLS, 2)
  for step, share in ((0, 0.25), (2, 0.75), (3, 1.0), (9, 1.0)):
    scores = whole + share * (masked - whole)
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(4), Y])
    loss = value(jnp.asarray(CELLS), step=jnp.int32(step), warmup_steps=4)[0]
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_gradients_spare_the_best_window():
  slopes = np.asarray(jax.grad(lambda x: value(x)[0])(jnp.asarray(CELLS)))
  _, masked, places = by_hand(CELLS, 2)
  p = np.exp(masked) / np.exp(masked).sum(axis=1, keepdims=True)
  expected = (p[:, None, None] - np.eye(3)[Y][:, None, None]) * (CELLS > 0) / 80
  for b, (i, j) in enumerate(places):
    expected[b, i : i + 2, j : j + 2, Y[b]] = 0
  np.testing.assert_allclose(slopes, expected, atol=1e-7)


def test_a_network_learns():
  """Two classes of texture: the loss falls, and both statistics and weights move."""
  module = models.build('bagnet-digits', num_classes=2, width=4)
  noise = RNG.uniform(0, 0.2, (32, 8, 8, 1))
  y = np.arange(32, dtype=np.int32) % 2
  stripes = np.where(y[:, None, None, None] == 0, np.arange(8)[:, None, None] % 2, 0.5)
  batch = {'x': np.float32(noise + 0.8 * stripes), 'y': y, 'index': np.arange(32, dtype=np.int32)}
  made = train.objective('masked-features', None, sigma=0.0, window=3.0)
  tx = optax.adam(3e-2)
  specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)
  step = parallel.pmap(
    train.make_step(module, tx, **made), parallel.data_mesh(jax.devices()[:1]), specs,
    parallel.REPLICATED,
  )  # fmt: skip
  state = train.init_state(jax.random.key(0), module, tx, (8, 8, 1))
  mean = np.asarray(state.batch_stats['bn1']['mean'])
  for _ in range(30):
    state, metrics = step(state, jax.random.key(1), batch)
  assert float(metrics['loss']) < 0.3 and float(metrics['masked_accuracy']) > 0.9
  assert (np.asarray(state.batch_stats['bn1']['mean']) != mean).any()


def test_bad_input():
  for window in (0, 1.5, float('nan')):
    with pytest.raises(ValueError, match='`window` must be a whole number of cells'):
      train.masked_features(window=window)
  with pytest.raises(ValueError, match='`window`=5 leaves none of the 5 x 4 cells'):
    value(jnp.asarray(CELLS), 5)
  with pytest.raises(ValueError, match='needs a network of local features'):
    loss = train.masked_features(window=1).loss
    loss(None, lambda x, train: (x.mean(axis=(1, 2)), {}), jnp.asarray(CELLS), Y, 0)
  with pytest.raises(ValueError, match='trains on clean images: choose `method` none'):
    train.objective('masked-features', object(), sigma=0.1)
