"""Published weights: logits as in PyTorch, every leaf from one tensor, real weights as published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import data, models

IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}


def published():
  """PyTorch networks under the published names: {name: (make, our module, side of an image)}."""
  torch = pytest.importorskip('torch')
  from torch import nn
  from torch.nn import functional as F

  def conv(inner, outer, side, stride=1):
    return nn.Conv2d(inner, outer, side, stride, side // 2, bias=False)

  class Residual(nn.Module):
    """Basic block, or bottleneck where `expansion` is 4."""

    def __init__(self, inner, outer, stride, expansion, shortcut, option):
      super().__init__()
      self.stride, self.extra, self.projection = stride, outer * expansion - inner, None
      sides = [3, 3] if expansion == 1 else [1, 3, 1]
      self.depth = len(sides)
      channels = [inner, *[outer] * (self.depth - 1), outer * expansion]
      for i, side in enumerate(sides):
        step = stride if i == self.depth - 2 else 1
        setattr(self, f'conv{i + 1}', conv(channels[i], channels[i + 1], side, step))
        setattr(self, f'bn{i + 1}', nn.BatchNorm2d(channels[i + 1]))
      if (stride != 1 or self.extra) and option == 'B':
        self.projection = shortcut
        parts = conv(inner, channels[-1], 1, stride), nn.BatchNorm2d(channels[-1])
        setattr(self, shortcut, nn.Sequential(*parts))

    def forward(self, x):
      y = x
      for i in range(1, self.depth + 1):
        y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
        y = F.relu(y) if i < self.depth else y
      if self.projection:
        x = getattr(self, self.projection)(x)
      elif self.stride != 1 or self.extra:
        padding = (0, 0, 0, 0, self.extra // 2, self.extra // 2)
        x = F.pad(x[:, :, :: self.stride, :: self.stride], padding)
      return F.relu(x + y)

  class ResNet(nn.Module):
    def __init__(
      self, blocks, width, stem, expansion=1, shortcut='downsample', option='B', head='fc'
    ):
      super().__init__()
      self.stem, self.head, self.num_stages = stem, head, len(blocks)
      self.conv1 = conv(3, width, 7, 2) if stem == 'imagenet' else conv(3, width, 3)
      self.bn1 = nn.BatchNorm2d(width)
      inner = width
      for stage, count in enumerate(blocks):
        layers = []
        for i in range(count):
          outer, stride = width << stage, 2 if stage and i == 0 else 1
          layers.append(Residual(inner, outer, stride, expansion, shortcut, option))
          inner = outer * expansion
        setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))
      setattr(self, head, nn.Linear(inner, 10))

    def forward(self, x):
      x = F.relu(self.bn1(self.conv1(x)))
      x = F.max_pool2d(x, 3, 2, 1) if self.stem == 'imagenet' else x
      for stage in range(self.num_stages):
        x = getattr(self, f'layer{stage + 1}')(x)
      return getattr(self, self.head)(x.mean((2, 3)))

  class Wide(nn.Module):
    def __init__(self, inner, outer, stride):
      super().__init__()
      self.bn1, self.conv1 = nn.BatchNorm2d(inner), conv(inner, outer, 3, stride)
      self.bn2, self.conv2 = nn.BatchNorm2d(outer), conv(outer, outer, 3)
      self.convShortcut = conv(inner, outer, 1, stride) if inner != outer else None

    def forward(self, x):
      z = F.relu(self.bn1(x))
      y = self.conv2(F.relu(self.bn2(self.conv1(z))))
      return y + (x if self.convShortcut is None else self.convShortcut(z))

  class Stage(nn.Module):
    def __init__(self, inner, outer, stride, count):
      super().__init__()
      first, rest = Wide(inner, outer, stride), [Wide(outer, outer, 1) for _ in range(count - 1)]
      self.layer = nn.Sequential(first, *rest)

    def forward(self, x):
      return self.layer(x)

  class WideResNet(nn.Module):
    def __init__(self, depth, width):
      super().__init__()
      channels, n = [16, 16 * width, 32 * width, 64 * width], (depth - 4) // 6
      self.conv1 = conv(3, 16, 3)
      self.block1 = Stage(channels[0], channels[1], 1, n)
      self.sub_block1 = Stage(channels[0], channels[1], 1, n)  # TRADES', never called.
      self.block2 = Stage(channels[1], channels[2], 2, n)
      self.block3 = Stage(channels[2], channels[3], 2, n)
      self.bn1, self.fc = nn.BatchNorm2d(channels[3]), nn.Linear(channels[3], 10)

    def forward(self, x):
      x = self.block3(self.block2(self.block1(self.conv1(x))))
      return self.fc(F.relu(self.bn1(x)).mean((2, 3)))

  ours = models.ImageNetResNet
  return torch, {
    'akamaster resnet20': (
      lambda: ResNet([3, 3, 3], 16, 'cifar', option='A', head='linear'), models.ResNet(10), 32
    ),
    'cohen resnet20': (
      lambda: ResNet([3, 3, 3], 16, 'cifar'), models.ResNet(10, shortcut='B'), 32
    ),
    'cifar resnet18': (
      lambda: ResNet([2, 2, 2, 2], 8, 'cifar', shortcut='shortcut', head='linear'),
      ours(10, depth=18, stem='cifar', width=8), 32
    ),
    'torchvision resnet18': (
      lambda: ResNet([2, 2, 2, 2], 8, 'imagenet'), ours(10, depth=18, width=8), 65
    ),
    'torchvision resnet50': (
      lambda: ResNet([3, 4, 6, 3], 8, 'imagenet', expansion=4), ours(10, depth=50, width=8), 64
    ),
    'wrn40-2': (lambda: WideResNet(40, 2), models.build('wrn40-2', num_classes=10), 32),
  }  # fmt: skip


NETWORKS = (
  'akamaster resnet20', 'cohen resnet20', 'cifar resnet18', 'torchvision resnet18',
  'torchvision resnet50', 'wrn40-2',
)  # fmt: skip


def network(name):
  """(torch, network in evaluation mode with statistics far from their start, module, side)."""
  torch, table = published()
  assert tuple(table) == NETWORKS
  make, module, side = table[name]
  torch.manual_seed(0)
  net = make().eval()
  with torch.no_grad():
    for part in net.modules():
      if isinstance(part, torch.nn.Conv2d):
        torch.nn.init.kaiming_normal_(part.weight)
      if isinstance(part, torch.nn.BatchNorm2d):
        for tensor, low, high in (
          (part.weight, 0.5, 1.5), (part.bias, -0.2, 0.2),
          (part.running_mean, -0.2, 0.2), (part.running_var, 0.5, 2.0),
        ):  # fmt: skip
          tensor.uniform_(low, high)
  return torch, net, module, side


def assert_same_logits(torch, net, module, variables, side):
  x = np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
  x[1, : side // 2] += 2
  with torch.no_grad():
    expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
  logits = np.asarray(jax.jit(models.bind(module, variables))(x))
  scale = np.abs(expected).max()
  assert np.ptp(expected, axis=0).max() > 0.02 * scale  # Two images, two answers.
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('name', NETWORKS)
def test_logits_are_those_of_pytorch(tmp_path, name):
  torch, net, module, side = network(name)
  torch.save(net.state_dict(), tmp_path / 'weights.pt')
  variables = models.load_weights(tmp_path / 'weights.pt', module)
  template = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
  assert jax.tree.structure(variables) == jax.tree.structure(template)
  leaves = zip(jax.tree.leaves(variables), jax.tree.leaves(template), strict=True)
  assert all((a.shape, a.dtype) == (b.shape, b.dtype) for a, b in leaves)
  assert_same_logits(torch, net, module, variables, side)


def test_checkpoint_of_2019(tmp_path):
  """As Cohen et al. saved theirs: legacy format, DataParallel in a Sequential, optimiser beside."""
  torch, net, module, side = network('cohen resnet20')
  wrapped = torch.nn.Sequential(torch.nn.Identity(), torch.nn.DataParallel(net))
  optimizer = torch.optim.SGD(wrapped.parameters(), 1e-4, momentum=0.9)
  wrapped(torch.zeros(1, 3, side, side)).sum().backward()
  optimizer.step()
  checkpoint = {
    'epoch': 90, 'arch': 'cifar_resnet20', 'state_dict': wrapped.state_dict(),
    'optimizer': optimizer.state_dict(),
  }  # fmt: skip
  assert '1.module.layer2.0.downsample.0.weight' in checkpoint['state_dict']
  path = tmp_path / 'checkpoint.pth.tar'
  torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
  torch.save(net.state_dict(), tmp_path / 'plain.pt')
  plain = models.load_weights(tmp_path / 'plain.pt', module)
  jax.tree.map(np.testing.assert_array_equal, models.load_weights(path, module), plain)


@pytest.mark.parametrize('zipped', [True, False])
def test_tensors_of_every_kind(tmp_path, zipped):
  """Transposed, cut out of a larger storage, shared, a Parameter, half, bfloat16, a scalar."""
  torch = pytest.importorskip('torch')
  base = torch.arange(24.0).reshape(4, 6)
  state = {
    'transposed': base.t(), 'part': base[1:3, 2:5], 'every second': base[:, ::2], 'base': base,
    'parameter': torch.nn.Parameter(base + 1), 'half': base.half(), 'bfloat16': base.bfloat16(),
    'double': base.double(), 'count': torch.tensor(3), 'bool': base > 3, 'empty': base[:0],
  }  # fmt: skip
  path = tmp_path / 'weights.pt'
  torch.save({'state_dict': state}, path, _use_new_zipfile_serialization=zipped)
  found = models.read_state_dict(path)
  assert list(found) == list(state)
  for name, tensor in state.items():
    np.testing.assert_array_equal(found[name], tensor.detach().to(torch.float64).numpy())


def save(path, state):
  np.savez(path, **state)
  return path


def made(module):
  """Random variables of a module, and the same in PyTorch's layout: (ours, theirs)."""
  from certjax.models._weights import _name

  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  ours = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  theirs = {}
  for keys, array in jax.tree_util.tree_leaves_with_path(ours):
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    theirs[_name([key.key for key in keys])] = array
  return ours, theirs


@pytest.fixture(scope='module')
def state():
  """(module, variables, the same as a state dict) of a ResNet-8."""
  module = models.ResNet(10, depth=8, shortcut='B')
  return module, *made(module)


def test_names_are_those_of_pytorch(state):
  names = set(state[2])
  assert {'conv1.weight', 'bn1.running_var', 'layer2.0.shortcut.1.bias', 'fc.weight'} <= names
  assert len(names) == len(jax.tree.leaves(state[1]))


def test_every_leaf_comes_from_its_tensor(tmp_path, state):
  module, variables, theirs = state
  wrapped = {f'module.{name}': array for name, array in theirs.items()}
  wrapped['module.bn1.num_batches_tracked'] = np.array(7)
  wrapped['norm.module.mu'] = np.zeros((3, 1, 1))
  found = models.load_weights(save(tmp_path / 'w.npz', wrapped), module)
  jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_number_of_classes_by_name(tmp_path):
  variables, theirs = made(models.ResNet(7, depth=20))
  found = models.load_weights(save(tmp_path / 'w.npz', theirs), 'resnet20')
  jax.tree.map(np.testing.assert_array_equal, found, variables)


@pytest.mark.parametrize(
  'change, text',
  [
    (lambda s: s.pop('fc.bias'), 'missing: fc.bias. Choose'),
    (lambda s: s.update({'fc.extra': np.zeros(1)}), 'unexpected: fc.extra. Choose'),
    (
      lambda s: s.update({'conv1.weight': np.zeros((16, 3, 7, 7))}),
      r'wrong shape: conv1.weight \(16, 3, 7, 7\), expected \(16, 3, 3, 3\)',
    ),
    (lambda s: s.update({'bn1.bias': np.full(16, np.nan)}), 'not finite: bn1.bias'),
    (lambda s: s.update({'linear.bias': np.zeros(10)}), 'holds fc.bias twice'),
    (lambda s: s.update({f'x{i}': np.zeros(1) for i in range(9)}), 'x0; x1; x2 and 6 more'),
  ],
)
def test_files_that_do_not_fit(tmp_path, state, change, text):
  module, _, theirs = state
  theirs = dict(theirs)
  change(theirs)
  with pytest.raises(ValueError, match=text) as error:
    models.load_weights(save(tmp_path / 'w.npz', theirs), module)
  assert '\n' not in str(error.value)


def test_a_tensor_inside_and_outside_the_wrapper(tmp_path, state):
  module, _, theirs = state
  wrapped = {f'module.{name}': array for name, array in theirs.items()}
  wrapped['fc.bias'] = theirs['fc.bias'] + 1
  with pytest.raises(ValueError, match='holds fc.bias twice'):
    models.load_weights(save(tmp_path / 'w.npz', wrapped), module)


def test_another_architecture(tmp_path, state):
  path = save(tmp_path / 'w.npz', state[2])
  with pytest.raises(
    ValueError, match='does not fit WideResNet. missing: .* and .* more.*unexpected'
  ):
    models.load_weights(path, 'wrn40-2')
  headless = {name: array for name, array in state[2].items() if not name.startswith('fc')}
  with pytest.raises(ValueError, match='0 layers named fc or linear: pass a module'):
    models.load_weights(save(tmp_path / 'x.npz', headless), 'resnet20')


@pytest.mark.usefixtures('optimized')  # Ten thousand images through one program.
def test_published_resnet20_on_the_real_test_set(shared):
  """akamaster's CIFAR-10 ResNet-20: 91.73% of the 10,000 test images."""
  variables = models.load_weights(shared / 'weights/cifar_resnet20_akamaster.npz', 'resnet20')
  module = models.build('resnet20', num_classes=10, **IMAGENET)
  images = data.load('cifar10', 'test', data_dir=shared / 'tensorflow_datasets')
  correct = jax.jit(lambda model_fn, x, y: jnp.sum(jnp.argmax(model_fn(x), axis=-1) == y))
  model_fn, total = models.bind(module, variables), 0
  for batch, _ in data.eval_batches(images, 500):
    total += int(correct(model_fn, data.to_float(batch['x']), batch['y']))
  assert total == 9173
