"""LPIPS: published conventions to the digit, Euclidean form, bounds, gradients where nothing is active."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import distances, models, parallel

# Channels first, one layer of 2 x 2 with a position where nothing is active, one of 1 x 1.
A = ([[[3, 0], [1, 2]], [[4, 0], [1, 0]]], [[[1]], [[2]], [[2]]])
B = ([[[4, 1], [1, 0]], [[3, 0], [-1, 2]]], [[[2]], [[2]], [[1]]])
PHI_A = [0.3, 0, 0.3535534, 0.5, 0.4, 0, 0.3535534, 0, 0.3333333, 0.6666667, 0.6666667]
HEADS = (np.array([1.0, 0.0]), np.array([0.0, 3.0, 0.0]))


def layers(activations):
  """[H, W, C] each."""
  return [np.array(a, np.float64).transpose(1, 2, 0) for a in activations]


def pictured(x):
  """A feature function whose activations are the image, cut in two layers."""
  return (x[:, :2, :2, :2], x[:, 2:, 2:]), x.sum((1, 2))


def image(activations):
  """An image [3, 3, 3] that `pictured` reads those activations off."""
  x = np.zeros((3, 3, 3))
  x[:2, :2, :2], x[2:, 2:] = layers(activations)
  return x


def everything(a, b):
  root, square = (distances.lpips(pictured, root=root) for root in (True, False))
  weighted, heads = (distances.lpips(pictured, HEADS, root=root) for root in (True, False))
  return {
    'phi': distances.embedding(pictured)(jnp.stack([a, b])),
    'root': root(a, b), 'square': square(a, b), 'weighted': weighted(a, b), 'heads': heads(a, b),
    'slope': jax.grad(root)(a, b), 'slope of heads': jax.grad(weighted)(a, b),
  }  # fmt: skip


@pytest.fixture(scope='module')
def of():
  """`of(a, b)`: all values of two images, in float64, from one program."""
  program = jax.jit(everything)

  def run(a, b):
    with parallel.x64():
      return {name: np.asarray(value) for name, value in program(a, b).items()}

  return run


def test_phi_in_the_published_convention(of):
  phi = of(image(A), image(B))['phi'][0]
  channels_first = [*phi[:8].reshape(4, 2).T.ravel(), *phi[8:]]
  np.testing.assert_allclose(channels_first, PHI_A, atol=1e-7)
  assert abs(np.sum(phi**2) - 1.75) < 1e-8  # One position of four is silent.


def test_all_forms_of_the_distance(of):
  found = of(image(A), image(B))
  assert abs(found['root'] - 1.2215654800443145) < 1e-9
  np.testing.assert_allclose(found['square'], 1.2699999998284892 + 0.2222222222074074, atol=1e-12)
  # A weight is that of a channel's squared difference.
  unit = lambda g: g / (np.linalg.norm(g, axis=-1, keepdims=True) + 1e-30)
  (a1, a2), (b1, b2) = (map(unit, layers(x)) for x in (A, B))
  expected = np.mean((a1 - b1)[..., 0] ** 2) + 3 * (a2 - b2)[0, 0, 1] ** 2
  np.testing.assert_allclose(found['heads'], expected, atol=1e-8)
  np.testing.assert_allclose(found['weighted'], np.sqrt(expected), atol=1e-8)


@pytest.mark.parametrize('form, slope', [('root', 'slope'), ('weighted', 'slope of heads')])
def test_gradients_are_those_of_differences(of, form, slope):
  a, b = image(A), image(B)
  direction = np.where(a != 0, np.random.default_rng(0).normal(size=a.shape), 0)
  ahead, behind = (of(a + t * direction, b)[form] for t in (1e-6, -1e-6))
  gradient = of(a, b)[slope]
  np.testing.assert_allclose(np.vdot(gradient, direction), (ahead - behind) / 2e-6, rtol=1e-6)
  assert not gradient[0, 1].any()  # The silent position.


def test_gradients_are_finite_where_nothing_moves(of):
  """Equal images, and one without any activation."""
  a, b = image(A), image(B)
  assert not of(a, a)['slope'].any() and of(a, a)['root'] == 0
  assert not of(0 * a, b)['slope'].any() and of(0 * a, b)['root'] > 1


def test_phi_ignores_the_scale_and_is_bounded(of):
  rng = np.random.default_rng(0)
  for a, b in rng.uniform(0, 1, (5, 2, 3, 3, 3)):
    found, scaled = of(a, b), of(7 * a, b)
    np.testing.assert_allclose(found['phi'], scaled['phi'], atol=1e-8)
    np.testing.assert_allclose(found['root'], np.linalg.norm(np.subtract(*found['phi'])))
    assert 0.1 < found['root'] <= np.sqrt(2 * 2)
  assert of(a, -a)['root'] <= 2 * np.sqrt(2) + 1e-9


def test_between_is_the_distance_of_each_pair(of):
  x1, x2 = np.random.default_rng(1).uniform(0, 1, (2, 3, 3, 3, 3))
  found = distances.between(distances.lpips(pictured), np.float32(x1), np.float32(x2))
  expected = [of(a, b)['root'] for a, b in zip(x1, x2, strict=True)]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_images_outside_the_pixel_range_are_refused_where_they_are_numbers():
  x = np.random.default_rng(2).uniform(0, 1, (3, 3, 3)).astype(np.float32)
  distance = distances.lpips(pictured)
  for pair in ((x, 2 * x - 1), (2 * x - 1, x)):
    name = 'x2' if pair[0] is x else 'x1'
    with pytest.raises(ValueError, match=rf'`{name}` must lie in .* use `\(x \+ 1\) / 2`'):
      distance(*pair)
    assert jax.eval_shape(distance, *pair).shape == ()  # Tracers hold no numbers.


def test_images_smaller_than_the_network_allows():
  module = models.AlexNet(num_classes=10, hidden=8)
  variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 63, 63, 3), np.float32))
  call = lambda variables, x: distances.lpips(models.bind_features(module, variables))(x, x)
  small = np.zeros((62, 62, 3), np.float32)
  with pytest.raises(ValueError, match=r"\(62, 62, 3\) are too small for `variant`='imagenet'"):
    jax.eval_shape(call, variables, small)


def test_weights_that_do_not_fit():
  with pytest.raises(ValueError, match='`weights` must be at least 0, got -1.0 in layer 1'):
    distances.lpips(pictured, [np.ones(3), -np.ones(3)])
  with pytest.raises(ValueError, match=r'one array a layer, of shapes \[\(2,\), \(3,\)\]'):
    jax.eval_shape(distances.lpips(pictured, [np.ones(2)]), np.ones((3, 3, 3)), np.ones((3, 3, 3)))
