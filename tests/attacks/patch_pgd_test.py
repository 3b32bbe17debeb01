"""Patches: protocol, the optimum of a linear model, places, the mean of views, certificates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, certify, smoothing, testing, threats

SHAPE = (4, 4, 2)
W = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def linear(x, w=W):
  """y = 0 is right while the score of w is below 0: an attack on 0 raises it."""
  score = jnp.einsum('bhwc,hwc->b', x - 0.5, w, precision='highest')
  return jnp.stack([jnp.zeros_like(score), score], axis=1)


def batch(size):
  x = np.random.default_rng(1).uniform(0, 1, (size, *SHAPE)).astype(np.float32)
  return jnp.asarray(x), jnp.zeros(size, jnp.int32)


def squares(values, side):
  """float[B, rows, columns], sums over the squares of float[B, H, W]."""
  windows = np.lib.stride_tricks.sliding_window_view(values, (side, side), axis=(1, 2))
  return windows.sum(axis=(3, 4))


def test_protocol():
  make = lambda t: attacks.patch_pgd(side=t.eps, step_size=0.2, num_steps=2, random_start=False)
  testing.check_attack(make, threats.patch, linear, *batch(3), eps=2)


@pytest.mark.parametrize('side', [1, 3])
def test_the_linear_optimum_wherever_it_lies(side):
  """The largest sum of gains sum_c max(w (1 - x), -w x) over all squares; the edges are among them."""
  x, y = batch(60)
  attack = jax.jit(
    attacks.patch_pgd(
      side=side, step_size=0.5, num_steps=2, random_start=False, loss=attacks.margin
    ),
    static_argnums=1,
  )
  x_adv = np.asarray(attack(jax.random.key(0), linear, x, y))
  gains = np.maximum(W * (1 - np.float64(x)), -W * np.float64(x)).sum(axis=3)
  sums = squares(gains, side)
  gain = np.asarray(linear(x_adv) - linear(x))[:, 1]
  np.testing.assert_allclose(gain, sums.max(axis=(1, 2)), rtol=1e-5, atol=1e-5)
  best = np.stack(np.unravel_index(sums.reshape(60, -1).argmax(axis=1), sums.shape[1:]), axis=1)
  assert {0, 4 - side} <= set(best.ravel().tolist())  # The last row or column is needed.
  changed = np.any(x_adv != x, axis=3)
  assert (squares(changed, side).max(axis=(1, 2)) == changed.sum(axis=(1, 2))).all()


def test_places_are_drawn_for_each_image_and_none_twice():
  """8 of 9 places miss the corner in 1/9 of the images (with repetition in 39%); 300, 5 errors: 6e-7."""
  corner = np.zeros(SHAPE, np.float32)
  corner[-1, -1] = 1
  x, y = jnp.zeros((300, *SHAPE)), jnp.zeros(300, jnp.int32)
  attack = jax.jit(
    attacks.patch_pgd(side=2, step_size=1.0, num_steps=1, num_locations=8), static_argnums=1
  )
  keys, model_fn = jax.random.split(jax.random.key(0), 300), lambda x: linear(x, corner)
  x_adv = np.asarray(attack(keys, model_fn, x, y))
  missed = float(np.mean(x_adv[:, -1, -1, 0] == 0))
  assert abs(missed - 1 / 9) < 5 * np.sqrt(8 / 81 / 300)
  # Rows go with their keys, and with nothing else; the colours beside the corner are random.
  assert np.array_equal(np.asarray(attack(keys[::-1], model_fn, x, y))[::-1], x_adv)
  beside = x_adv[x_adv[:, -1, -1, 0] > 0, -2, -1, 0]
  assert len(np.unique(beside)) == len(beside) and beside.min() >= 0 and beside.max() <= 1
  assert (jax.vmap(threats.patch(2).distance)(x, x_adv) <= 2).all()


def test_places_of_your_own():
  x, y = batch(5)
  attack = attacks.patch_pgd(
    side=2, step_size=1.0, num_steps=1, locations=[[2, 2], [0, 1]], random_start=False
  )
  x_adv = np.asarray(attack(jax.random.key(0), linear, x, y))
  gains = np.maximum(W * (1 - np.float64(x)), -W * np.float64(x)).sum(axis=3)
  best = squares(gains, 2)[:, [2, 0], [2, 1]].max(axis=1)
  np.testing.assert_allclose((linear(x_adv) - linear(x))[:, 1], best, rtol=1e-5)


BANDS = (6, 7, 1)
RNG = np.random.default_rng(0)
FIRST = 2 * RNG.normal(size=(12, 8)).astype(np.float32)
SECOND = RNG.normal(size=(8, 3)).astype(np.float32)


def of_views(x):
  """A random net of what a band shows (two channels), wherever it lies."""
  shown = x.sum(axis=2).reshape(len(x), -1)
  hidden = jnp.tanh(jnp.einsum('bi,ih->bh', shown, FIRST, precision='highest'))
  return jnp.einsum('bh,hk->bk', hidden, SECOND, precision='highest')


def test_mean_of_views_and_its_gradient():
  """7 views in chunks of 3, and of more than there are, against all of them at once."""
  views = smoothing.bands(width=2, shape=BANDS)
  x = jnp.asarray(RNG.uniform(size=(2, *BANDS)).astype(np.float32))

  def plain(x):
    seen = jax.vmap(jax.vmap(views.view, (None, 0)), (0, None))(x, jnp.arange(7, dtype=jnp.int32))
    logits = of_views(seen.reshape(14, *seen.shape[2:])).reshape(2, 7, 3)
    return jnp.log(jax.nn.softmax(logits).mean(axis=1))

  both = lambda f: jax.jit(lambda x: (f(x), jax.grad(lambda x: f(x)[:, 1].sum())(x)))(x)
  value, gradient = both(plain)
  for chunk in (3, 100):
    found = both(attacks.mean_of_views(of_views, views, chunk=chunk))
    np.testing.assert_allclose(found[0], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], gradient, rtol=1e-4, atol=1e-6)


def test_no_certified_label_of_bands_changes_and_others_do():
  """Every place of the patch, 60 images: sides up to the certified one, and one that is not."""
  views = smoothing.bands(width=1, shape=BANDS, patch=4, theta=0.4)
  rng = np.random.default_rng(2)
  x = rng.uniform(size=(60, 6, 1, 1)) + 0.3 * rng.normal(size=(60, *BANDS))
  x = x.clip(0, 1).astype(np.float32)
  proof = certify.enumerated(of_views, views, x, chunk=70)
  broken, held = [], 0
  for side in (1, 2):
    attack = attacks.patch_pgd(
      side=side, step_size=0.3, num_steps=4, random_start=False, loss=attacks.margin
    )
    surrogate = attacks.mean_of_views(of_views, views, chunk=7)
    y = jnp.asarray(proof.label, jnp.int32)
    x_adv = jax.jit(attack, static_argnums=1)(jax.random.key(0), surrogate, x, y)
    changed = certify.enumerated(of_views, views, x_adv, chunk=70).label != proof.label
    certified = proof.radius >= side
    assert not changed[certified].any(), 'a certificate is contradicted'
    held += certified.sum()
    broken.append(changed[~certified].mean())
  assert held > 10 and max(broken) > 0.3, (held, broken)


@pytest.mark.parametrize(
  'options, match',
  [
    ({'side': 5}, '`side` must fit in the image of 4 x 4'),
    ({'side': 1.5}, '`side` is a whole number of pixels'),
    ({'num_steps': -1}, '`num_steps` must be at least 0'),
    ({'step_size': 0.0}, '`step_size` positive'),
    ({'num_locations': 0}, '`num_locations` must be at least 1'),
    ({'num_locations': 2, 'locations': [[0, 0]]}, 'no meaning beside `locations`'),
    ({'locations': [[0, 3]]}, '`locations` are first rows 0 .. 2 and columns 0 .. 2'),
    ({'locations': [[0.5, 0]]}, r'`locations` are first rows .*int\[L, 2\]'),
  ],
)
def test_bad_arguments(options, match):
  with pytest.raises(ValueError, match=match):
    options = {'side': 2, 'step_size': 0.1, 'num_steps': 1, **options}
    attacks.patch_pgd(**options)(jax.random.key(0), linear, *batch(1))


def test_bad_chunk():
  with pytest.raises(ValueError, match='`chunk` is a number of views'):
    attacks.mean_of_views(of_views, smoothing.bands(width=2, shape=BANDS), chunk=0)
