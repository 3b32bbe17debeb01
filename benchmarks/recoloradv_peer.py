"""ReColorAdv on PyTorch, step by step as its authors' code goes: not ours, and not fast.

What differs from `functional.recolor(compat=True)` on purpose: torch's own Adam, gradients and clamps; the
constraints work on the parameters before each decoding; a gradient that is not finite is not replaced.
Benchmarks ask it whether a number that ours does not find again is found by other means.
"""

import numpy as np
import torch
from torch.nn import functional

SIZES = (16, 32, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = 1e-10


def right_under_attack(weights, x, y, *, bound, steps, step_size, penalty, batch=50):
  """bool[N]: whether a ResNet-32 in a NumPy file is right on the last image of each search.

  Args:
    weights: path of an .npz with the names of its `state_dict`.
    x: float[N, 32, 32, 3] in [0, 1].
    y: int[N].
    bound, steps, step_size, penalty: of the search.
    batch: images at once.
  """
  with np.load(weights) as file:
    state = {name: torch.tensor(file[name]) for name in file.files}
  x = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2).contiguous()
  y = torch.tensor(np.asarray(y)).long()
  right = []
  for start in range(0, len(x), batch):
    part = slice(start, start + batch)
    x_adv = _search(state, x[part], y[part], bound, steps, step_size, penalty)
    with torch.no_grad():
      right.append((_resnet32(state, x_adv).argmax(1) == y[part]).numpy())
    print(
      f'torch, {min(start + batch, len(x))} of {len(x)}: {np.concatenate(right).mean():.3f}',
      flush=True,
    )
  return np.concatenate(right)


def _search(state, x, y, bound, steps, step_size, penalty):
  axes = torch.meshgrid(*[torch.linspace(0, 1, n) for n in SIZES], indexing='ij')
  identity = torch.stack(axes, -1).repeat(len(x), 1, 1, 1, 1)
  f = torch.nn.Parameter(identity.clone())
  optimizer = torch.optim.Adam([f], lr=step_size)

  def decoded():
    with torch.no_grad():
      inside = _encode(_decode(f.clamp(0, 1)))
      f.copy_(torch.minimum(torch.maximum(inside, identity - bound), identity + bound))
    return _decode(_interpolated(f, _encode(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)

  for _ in range(steps):
    optimizer.zero_grad()
    logits = _resnet32(state, decoded())
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).max(1)[0]
    (own - other + penalty * _variation(f - identity)).sum().backward()
    optimizer.step()
  with torch.no_grad():
    return decoded()


def _interpolated(f, colour):
  place = colour * torch.tensor([n - 1.0 for n in SIZES])
  low, rest = torch.floor(place).long(), place % 1
  flat, mixed = f.reshape(len(f), -1, 3), 0
  for corner in np.ndindex(2, 2, 2):
    index, weight = 0, 1
    for axis, (step, size) in enumerate(zip(corner, SIZES, strict=True)):
      index = index * size + (low[..., axis] + step).clamp(0, size - 1)
      share = rest[..., axis, None]
      weight = weight * (share if step else 1 - share)
    index = index.reshape(len(f), -1, 1).expand(-1, -1, 3)
    mixed = mixed + weight * flat.gather(1, index).reshape(colour.shape)
  return mixed


def _variation(grid):
  """Each pair of neighbours twice, points at the border beside themselves."""
  total = 0
  for axis in (1, 2, 3):
    change = grid.diff(dim=axis)
    border = torch.zeros_like(grid.narrow(axis, 0, 1))
    for steps in (torch.cat([change, border], axis), torch.cat([border, change], axis)):
      total = total + (steps.pow(2).sum(-1) + TINY).sqrt().sum((1, 2, 3))
  return total


def _encode(rgb):
  linear = torch.where(rgb < 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  x, y, z = _times(
    linear, ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9504))
  )
  total = x + 15 * y + 3 * z + TINY
  cubed = 116 * y.clamp(min=TINY) ** (1 / 3) - 16
  lightness = torch.where(y < (6 / 29) ** 3, (29 / 3) ** 3 * y, cubed)
  u, v = (13 * lightness * (k * c / total - w) for k, c, w in ((4, x, 0.1978), (9, y, 0.4683)))
  return torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], -1)


def _decode(unit):
  lightness, u, v = 100 * unit[..., 0], 200 * unit[..., 1] - 100, 200 * unit[..., 2] - 100
  u, v = (c / (13 * lightness + TINY) + w for c, w in ((u, 0.1978), (v, 0.4683)))
  y = torch.where(lightness <= 8, lightness * (3 / 29) ** 3, ((lightness + 16) / 116) ** 3)
  total = 4 * v + TINY
  xyz = torch.stack([9 * y * u / total, y, y * (12 - 3 * u - 20 * v) / total], -1).clamp(0, 1.1)
  rows = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
  linear = torch.stack(_times(xyz, rows), -1)
  power = 1.055 * linear.clamp(min=TINY) ** (1 / 2.4) - 0.055
  return torch.where(linear < 0.0031308, 12.92 * linear, power).clamp(0, 1)


def _times(colour, matrix):
  return [sum(k * c for k, c in zip(row, colour.unbind(-1), strict=True)) for row in matrix]


def _resnet32(state, x):
  shape = (1, 3, 1, 1)
  x = (x - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
  norm = lambda x, name: functional.batch_norm(
    x, state[f'{name}.running_mean'], state[f'{name}.running_var'], state[f'{name}.weight'],
    state[f'{name}.bias'],
  )  # fmt: skip
  conv = lambda x, name, stride=1: functional.conv2d(
    x, state[f'{name}.weight'], stride=stride, padding=1
  )
  x = norm(conv(x, 'conv1'), 'bn1').relu()
  for stage in (1, 2, 3):
    for number in range(5):
      name, stride = f'layer{stage}.{number}', 2 if stage > 1 and number == 0 else 1
      y = norm(conv(x, f'{name}.conv1', stride), f'{name}.bn1').relu()
      y = norm(conv(y, f'{name}.conv2'), f'{name}.bn2')
      x = x[:, :, ::stride, ::stride]
      more = (y.shape[1] - x.shape[1]) // 2  # New channels start as zeros, half on either side.
      x = (y + functional.pad(x, (0, 0, 0, 0, more, more))).relu()
  return x.mean((2, 3)) @ state['linear.weight'].T + state['linear.bias']
