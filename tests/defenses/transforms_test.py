"""Fixed input transforms: their values, and that only BPDA sees past those without gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, defenses, threats

pytestmark = pytest.mark.usefixtures('many_programs')


def test_thermometer():
  x = jnp.array([[0.0, 0.25, 0.66], [1.0, 0.76, 0.5]])
  code = defenses.thermometer(levels=4)(x)
  bits = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]]
  np.testing.assert_array_equal(code, np.float32(bits).reshape(2, 12))
  soft = defenses.soft_thermometer(levels=4)
  np.testing.assert_array_equal(jnp.ceil(soft(x)), code)
  np.testing.assert_allclose(soft(x)[0, 8:], [0.41, 0.16, 0, 0], atol=1e-6)


def test_bit_depth():
  x = jnp.linspace(0, 1, 101)
  out = defenses.bit_depth(bits=3)(x)
  assert len(np.unique(out)) == 8 and float(jnp.abs(out - x).max()) <= 0.5 / 7 + 1e-6
  grid = jnp.arange(256, dtype=jnp.float32) / 255
  np.testing.assert_array_equal(defenses.bit_depth(bits=8)(grid), grid)


def test_jpeg_block():
  """B_ij = 60 + 8 i + 4 j at quality 50, where the tables are the standard's own."""
  rows, columns = np.mgrid[:8, :8]
  block = np.float32(60 + 8 * rows + 4 * columns)
  out = 255 * np.asarray(defenses.jpeg(quality=50)(jnp.asarray(block / 255)[..., None]))[..., 0]
  first = [61.6252, 63.6577, 67.4132, 72.3200, 77.6310, 82.5378, 86.2933, 88.3258]
  np.testing.assert_allclose(out[0], first, atol=2e-4)
  np.testing.assert_allclose(np.sqrt(np.mean((out - block) ** 2)), 1.2937865, atol=2e-5)
  np.testing.assert_allclose(np.abs(out - block).max(), 2.5378, atol=2e-4)


def test_jpeg_images():
  """Of any size, in colour; quality is an order; the colour planes have their own table."""
  y, x = np.mgrid[:11, :18] / 18
  image = np.stack([0.5 + 0.4 * np.sin(5 * x + y), 0.2 + 0.5 * y, 0.7 - 0.4 * x * y], axis=-1)
  image = jnp.asarray(image, jnp.float32)
  transform = lambda quality: defenses.jpeg(quality=quality)(image)
  errors = [float(jnp.sqrt(jnp.mean((transform(q) - image) ** 2))) for q in (5, 50, 100)]
  assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 2e-3, errors
  flat = jnp.broadcast_to(jnp.array([0.9, 0.2, 0.4]), (8, 8, 3))
  np.testing.assert_allclose(defenses.jpeg(quality=100)(flat), flat, atol=1 / 255)


def test_total_variation():
  """Smoother; without weight the kept values stay; with all the weight one value is left."""
  key, x = jax.random.key(0), jax.random.uniform(jax.random.key(1), (6, 5, 1))
  variation = lambda z: float(
    jnp.abs(jnp.diff(z, axis=0)).sum() + jnp.abs(jnp.diff(z, axis=1)).sum()
  )
  smooth = defenses.total_variation()(key, x)
  assert variation(smooth) < 0.8 * variation(x)
  loose = np.asarray(defenses.total_variation(weight=0.0, keep=0.5, num_steps=3)(key, x))
  kept = np.asarray(jax.random.bernoulli(key, 0.5, x.shape))
  np.testing.assert_allclose(loose[kept], np.asarray(x)[kept], rtol=1e-6)
  np.testing.assert_allclose(loose[~kept], np.mean(x), rtol=1e-5)
  tight = defenses.total_variation(weight=1.0, keep=1.0, num_steps=3000)(key, x)
  np.testing.assert_allclose(tight, np.full(x.shape, np.mean(x)), atol=2e-2)


W = np.random.default_rng(3).normal(size=64).astype(np.float32)
DEFENCES = {
  'thermometer': (defenses.thermometer(levels=8), defenses.soft_thermometer(levels=8)),
  'bit depth': (defenses.bit_depth(bits=3), None),
  'jpeg': (defenses.jpeg(quality=75), None),
}


@pytest.mark.parametrize('name', DEFENCES)
def test_rounding_hides_the_gradient_and_no_more(name):
  """PGD finds nothing and leaves the image; with BPDA all labels flip."""
  transform, backward = DEFENCES[name]
  x = jnp.asarray(np.random.default_rng(4).uniform(0.2, 0.8, (4, 8, 8, 1)).astype(np.float32))

  def model_fn(x):
    score = jnp.einsum('bhwc,hw->b', x - jnp.mean(x, axis=(1, 2), keepdims=True), W.reshape(8, 8))
    return jnp.stack([score, jnp.zeros(len(x))], axis=1)

  defended = defenses.transformed(model_fn, transform)
  seen = defenses.transformed(model_fn, defenses.bpda(transform, backward))
  y = jnp.argmax(defended(x), axis=1).astype(jnp.int32)
  np.testing.assert_array_equal(seen(x), defended(x))
  attack = attacks.pgd(
    threats.linf(0.3), step_size=0.1, num_steps=6, random_start=False, loss=attacks.margin
  )
  run = jax.jit(lambda model_fn, x, y: attack(jax.random.key(0), model_fn, x, y))
  assert np.array_equal(run(defended, x, y), x)
  x_adv = run(jax.tree_util.Partial(seen), x, y)
  assert (jnp.argmax(defended(x_adv), axis=1) != y).all()
  assert float(jnp.abs(x_adv - x).max()) <= 0.3 + 1e-6


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: defenses.thermometer(levels=0), '`levels` must be at least 1'),
    (lambda: defenses.bit_depth(bits=0), '`bits` must be at least 1'),
    (lambda: defenses.jpeg(quality=0), '`quality` lies in'),
    (lambda: defenses.jpeg()(jnp.zeros((8, 8, 2))), '`x` must be ONE image'),
    (lambda: defenses.total_variation(keep=0.0), '`keep` in'),
  ],
)
def test_bad_arguments(make, message):
  with pytest.raises(ValueError, match=message):
    make()
