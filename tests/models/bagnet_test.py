"""BagNets: what a cell sees, and nothing else; published sizes, and the published network itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, models

GEOMETRY = {'bagnet9': (9, 8), 'bagnet17': (17, 8), 'bagnet33': (33, 8), 'bagnet-small': (9, 2)}
SIZES = {'bagnet9': 15_688_744, 'bagnet17': 16_213_032, 'bagnet33': 18_310_184}


def narrow(name, num_classes=3):
  """A network of the same geometry with one block a stage: all others see one pixel."""
  module = models.build(name, num_classes=num_classes)
  return module.clone(width=4, blocks=(1,) * len(module.blocks), mean=(0.5,), std=(0.25,))


def spread(module, x):
  """Weights all of which matter: kernels of both signs, BatchNorm no identity and mostly active."""
  rng = np.random.default_rng(0)
  kernel = lambda shape: rng.normal(0.3, 1, shape) / np.sqrt(np.prod(shape[:-1]))
  draw = lambda shape: kernel(shape) if len(shape) > 1 else rng.uniform(0.2, 1, shape)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  return jax.tree.map(lambda leaf: np.float32(draw(leaf.shape)), shapes)


@pytest.mark.parametrize('name', GEOMETRY)
def test_what_a_cell_sees(name):
  """Gradients fill a square of the receptive field; what lies outside changes no bit."""
  module, (field, stride) = narrow(name), GEOMETRY[name]
  whole = models.build(name, num_classes=3)
  assert (module.receptive_field, module.stride) == (field, stride)
  assert (whole.receptive_field, whole.stride) == (field, stride)
  side = field + 2 * stride + stride - 1
  x = np.random.default_rng(1).uniform(0, 1, (1, side, side + stride, 1)).astype(np.float32)
  variables = spread(module, x)
  local = jax.jit(lambda x: module.apply(variables, x, method='local_logits'))
  cells = local(x)
  assert cells.shape == (1, 3, 4, 3)
  each = jax.jit(lambda i, j: jax.grad(lambda x: jnp.sum(local(x)[0, i, j]))(x))
  for i, j in ((0, 0), (1, 2), (2, 3)):
    rows, columns = np.nonzero(np.asarray(each(i, j))[0, :, :, 0])
    assert (rows.min(), columns.min()) == (stride * i, stride * j)
    assert (rows.max(), columns.max()) == (stride * i + field - 1, stride * j + field - 1)
  met = set()
  for patch in (1, 2, stride + 1):
    most = 0
    for row in range(0, side - patch + 1, 3):
      x_adv = x.copy()
      x_adv[0, row : row + patch, :patch] = 1 - np.round(x_adv[0, row : row + patch, :patch])
      changed = (np.asarray(local(x_adv)) != np.asarray(cells)).any(axis=(0, 3))
      first = stride * np.arange(3)
      inside = (first < row + patch) & (first + field > row)
      assert not changed[~inside].any()
      most = max(most, changed.any(axis=1).sum())
    assert most <= certify.cells_met(patch, receptive_field=field, stride=stride, cells=3)
    met.add(most)
  assert max(met) > 0


def test_logits_are_means_over_cells():
  module = narrow('bagnet-small')
  x = np.random.default_rng(2).uniform(0, 1, (2, 13, 11, 1)).astype(np.float32)
  variables = spread(module, x)
  cells = module.apply(variables, x, method='local_logits')
  assert cells.shape == (2, 3, 2, 3)
  np.testing.assert_allclose(module.apply(variables, x), cells.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize('name', SIZES)
def test_published_numbers_of_parameters(name):
  module = models.build(name, num_classes=1000)
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == SIZES[name]


def published(torch, kernel3, blocks, strides, width):
  """The network under its published names, in PyTorch."""
  nn, relu = torch.nn, torch.relu

  class Block(nn.Module):
    def __init__(self, inner, features, size, stride):
      super().__init__()
      outer = 4 * features
      conv = lambda i, o, k, s=1: nn.Conv2d(i, o, k, s, bias=False)
      self.conv1, self.bn1 = conv(inner, features, 1), nn.BatchNorm2d(features)
      self.conv2, self.bn2 = conv(features, features, size, stride), nn.BatchNorm2d(features)
      self.conv3, self.bn3 = conv(features, outer, 1), nn.BatchNorm2d(outer)
      self.downsample = None
      if stride != 1 or inner != outer:
        self.downsample = nn.Sequential(conv(inner, outer, 1, stride), nn.BatchNorm2d(outer))

    def forward(self, x):
      y = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
      y = self.bn3(self.conv3(y))
      x = x if self.downsample is None else self.downsample(x)
      return relu(y + x[:, :, : y.shape[2], : y.shape[3]])

  class Net(nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1 = nn.Conv2d(3, width, 1, bias=False)
      self.conv2, self.bn1 = nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)
      inner = width
      for stage, count in enumerate(blocks):
        layers = []
        for i in range(count):
          size, stride = (3 if i < kernel3[stage] else 1), (strides[stage] if i == 0 else 1)
          layers.append(Block(inner, width << stage, size, stride))
          inner = 4 * (width << stage)
        setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))
      self.fc = nn.Linear(inner, 10)

    def forward(self, x):
      x = relu(self.bn1(self.conv2(self.conv1(x))))
      for stage in range(len(blocks)):
        x = getattr(self, f'layer{stage + 1}')(x)
      return self.fc(x.permute(0, 2, 3, 1))

  return Net()


def test_weights_of_the_published_network(tmp_path):
  torch = pytest.importorskip('torch')
  torch.manual_seed(0)
  shape = {'kernel3': (1, 2, 0), 'blocks': (2, 2, 1), 'strides': (2, 2, 1), 'width': 4}
  theirs = published(torch, **shape)
  with torch.no_grad():
    for name, leaf in theirs.state_dict().items():
      if leaf.is_floating_point():
        leaf.add_(0.2 * torch.rand_like(leaf) + ('var' in name))
  torch.save({'state_dict': theirs.state_dict()}, tmp_path / 'w.pth.tar')
  module = models.BagNet(10, **shape)
  variables = models.load_weights(tmp_path / 'w.pth.tar', module, shape=(40, 40, 3))
  x = np.random.default_rng(3).uniform(0, 1, (2, 40, 37, 3)).astype(np.float32)
  with torch.no_grad():
    expected = theirs.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
  found = module.apply(variables, x, method='local_logits')
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
  'fields, said',
  [
    ({}, r'a BagNet of receptive field 17 sees nothing of images of shape \(16, 16, 1\)'),
    ({'strides': (2, 2)}, '`kernel3`, `blocks` and `strides` name one number a stage'),
    ({'kernel3': (4, 1, 1, 0)}, r'`kernel3` counts blocks of a stage, got \(4, 1, 1, 0\)'),
  ],
)
def test_what_does_not_fit(fields, said):
  module = models.BagNet(3, mean=(0.0,), std=(1.0,), **fields)
  with pytest.raises(ValueError, match=said):
    module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
