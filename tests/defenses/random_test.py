"""Random defences: places and sizes of resizing, the law of pruned activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import defenses

pytestmark = pytest.mark.usefixtures('many_programs')


def test_resize_pad_places_every_side_everywhere():
  """A white image: a full square of each side, at each place; 400 draws of 14 (side, top, left)."""
  draw = jax.jit(jax.vmap(defenses.resize_pad(size=4, smallest=2), (0, None)))
  images = np.asarray(draw(jax.random.split(jax.random.key(0), 400), jnp.ones((3, 5, 1))))[..., 0]
  seen = set()
  for image in images:
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert len(rows) == len(columns) and np.allclose(image[np.ix_(rows, columns)], 1, atol=1e-6)
    assert np.isclose(image.sum(), len(rows) ** 2, atol=1e-5)
    seen.add((len(rows), rows[0], columns[0]))
  assert len(seen) == 9 + 4 + 1


def test_resize_pad_of_the_own_size_is_the_image():
  """And inside a larger square every pixel still counts."""
  draw = jax.jit(lambda x: defenses.resize_pad(size=5)(jax.random.key(1), x))
  x = jnp.linspace(0, 1, 50).reshape(5, 5, 2)
  np.testing.assert_allclose(draw(x), x, atol=1e-6)
  wide = defenses.resize_pad(size=8)
  assert (jax.jit(jax.grad(lambda x: wide(jax.random.key(1), x).sum()))(x) > 0).all()


def test_pruned_activations_keep_their_mean():
  """20000 draws: a mean's standard error is at most 0.02 (largest sd 2.2); five of them."""
  h = jnp.array([[0.5, -2.0], [0.0, 1.0]])
  prune = lambda key: defenses.prune_activations(key, h, num_draws=2)
  out = np.asarray(jax.jit(jax.vmap(prune))(jax.random.split(jax.random.key(0), 20000)))
  np.testing.assert_allclose(out.mean(axis=0), h, atol=0.1)
  share = np.abs(np.asarray(h)) / 3.5
  hit = 1 - (1 - share) ** 2
  np.testing.assert_allclose((out != 0).mean(axis=0), hit, atol=0.02)
  np.testing.assert_allclose(out[:, 0, 1].min(), -2 / hit[0, 1], rtol=1e-5)


def test_edges_of_pruning():
  """Nothing to draw; all the weight on one activation; a vanishing one: values and gradients."""

  @jax.jit
  def prune(h):
    pruned = lambda h: defenses.prune_activations(jax.random.key(0), h, num_draws=3)
    return pruned(h), jax.grad(lambda h: pruned(h).sum())(h)

  for h in ([0.0, 0.0, 0.0], [0.0, -2.0, 0.0], [1e-30, 1.0, 0.0]):
    out, slope = prune(jnp.array(h))
    np.testing.assert_array_equal(out, np.float32(h) * (np.abs(h) > 0.1))
    assert np.isfinite(slope).all()


def test_pruned_model_has_a_key_a_row():
  random_fn = jax.jit(defenses.pruned([jnp.abs, lambda h: 2 * h, lambda h: h], share=0.5))
  keys, x = jax.random.split(jax.random.key(0), 3), jnp.ones((3, 6))
  out = random_fn(keys, x)
  np.testing.assert_array_equal(random_fn(keys[1:2], x[1:2])[0], out[1])
  assert (out != 0).any() and not np.array_equal(out[0], out[1])


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: defenses.resize_pad(size=3, smallest=4), '`smallest`'),
    (lambda: defenses.resize_pad(size=3)(jax.random.key(0), jnp.ones((4, 4, 1))), 'smallest=4'),
    (lambda: defenses.resize_pad(size=3)(jax.random.key(0), jnp.ones(4)), '`x` must be ONE image'),
    (lambda: defenses.pruned([jnp.abs]), '`stages` must be at least 2'),
    (
      lambda: defenses.prune_activations(jax.random.key(0), jnp.ones(3), num_draws=0),
      '`num_draws` must be at least 1',
    ),
  ],
)
def test_bad_arguments(make, message):
  with pytest.raises(ValueError, match=message):
    make()
