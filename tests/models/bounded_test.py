"""Feed-forward models: their sizes, PyTorch's order of layers and pixels, published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import data, evaluate, models

DIGIT = (28, 28, 1)


@pytest.mark.parametrize(
  'name, expected',
  [
    ('ibp-small', 329_606),
    ('ibp-medium', 893_418),
    ('ibp-large', 13_257_290),
    ('kw-mnist', 166_406),  # Wong & Kolter's MNIST network.
    ('mlp-5x100', 119_910),
    ('ablation-cnn', 3_320_922),
    ('wasserstein-cnn', 166_406),
  ],
)
def test_number_of_parameters(name, expected):
  """Counted by hand, layer by layer, from the papers' tables."""
  module = models.build(name, num_classes=10)
  channels = 2 if name == 'ablation-cnn' else 1  # (x, 1 - x).
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, channels)))
  assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables)) == expected


@pytest.mark.parametrize('name', ['ibp-small', 'kw-mnist', 'mlp-5x100'])
def test_logits_of_pytorch(name, tmp_path):
  torch = pytest.importorskip('torch')
  nn = torch.nn
  convolutions = {
    'ibp-small': (nn.Conv2d(1, 16, 4, 2), nn.Conv2d(16, 32, 4, 1), nn.Linear(3200, 100)),
    'kw-mnist': (nn.Conv2d(1, 16, 4, 2, 1), nn.Conv2d(16, 32, 4, 2, 1), nn.Linear(1568, 100)),
  }
  if name in convolutions:
    first, second, dense = convolutions[name]
    layers = [first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), dense, nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(100, 10))
  else:
    sizes = [784, *[100] * 5]
    pairs = zip(sizes, sizes[1:], strict=False)
    inner = [part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())]
    network = nn.Sequential(nn.Sequential(nn.Flatten(), *inner, nn.Linear(100, 10)))
  torch.save(network.state_dict(), tmp_path / 'weights.pt')
  variables = models.load_weights(tmp_path / 'weights.pt', name, shape=DIGIT)
  x = np.random.default_rng(0).uniform(0, 1, (3, *DIGIT)).astype(np.float32)
  ours = models.bind(models.build(name, num_classes=10), variables)(x)
  with torch.no_grad():
    theirs = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
  np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
  'file, name, accuracy',
  [
    ('kw_mnist', 'kw-mnist', 0.9820),  # Clean error 1.80%, as published.
    ('mnist_cnn_a_adv', 'kw-mnist', 0.9633),
    ('eran_mnist_6_100_nat', 'mlp-5x100', 0.9629),
  ],
)
def test_published_weights(file, name, accuracy, shared):
  variables = models.load_weights(shared / f'weights/{file}.npz', name, shape=DIGIT)
  model_fn = models.bind(models.build(name, num_classes=10), variables)
  images = data.load('mnist', 'test', data_dir=shared / 'tensorflow_datasets')
  assert evaluate.accuracy(model_fn, images) == pytest.approx(accuracy, abs=1e-9)


def test_initialisation_for_intervals():
  """Standard deviation sqrt(2 pi) / fan_in, for kernels and matrices; Shi et al. 2021."""
  module = models.FeedForward(
    10, convolutions=((64, 5, 1), (64, 5, 1)), hidden=(300,), kernel_init='ibp'
  )
  params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))['params']
  fans = {'2': 25 * 64, '5': 64 * 16, '7': 300}
  for name, fan in fans.items():
    kernel = np.asarray(params[name]['kernel'])
    expected = np.sqrt(2 * np.pi) / fan
    # Standard error of a deviation is 1 / sqrt(2 n): 5 of them, false alarm below 1e-5; fixed key.
    assert np.std(kernel) == pytest.approx(expected, rel=5 / np.sqrt(2 * kernel.size))
    assert (np.asarray(params[name]['bias']) == 0).all()


def test_what_does_not_fit():
  with pytest.raises(ValueError, match='images of shape .8, 8, 1. are too small for 2 conv'):
    jax.eval_shape(
      models.build('ibp-small', num_classes=10).init, jax.random.key(0), jnp.zeros((1, 8, 8, 1))
    )
  with pytest.raises(ValueError, match="`kernel_init` must be one of lecun, ibp; got 'he'"):
    models.FeedForward(10, kernel_init='he').init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
