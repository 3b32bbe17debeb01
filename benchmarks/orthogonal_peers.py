"""The layers of `orthogonal.py` in PyTorch: of `orthogonium` where it runs on a CPU, else the published
algorithm, written straight.

`orthogonium`'s SOC calls `.cuda()`, and it has no LOT, CPL or BRO. What is compared is not always
one algorithm: its BCOP iterates 12 times where ours does 20, its AOL and SLL share a parametrisation.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

KERNEL = 3


class SOC(nn.Module):
  """Taylor or Chebyshev series of a skew filter, four power iterations a training step."""

  def __init__(self, channels, coefficients, bound=1.8):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(channels, channels, KERNEL, KERNEL) / channels**0.5)
    self.coefficients, self.bound = coefficients, bound
    self.u = nn.ParameterList(
      nn.Parameter(torch.randn(n), requires_grad=False) for n in (channels, KERNEL * channels)
    )

  def forward(self, x):
    skew = 0.5 * (self.weight - self.weight.flip(2, 3).transpose(0, 1))
    channels = len(skew)
    matrices = (skew.reshape(channels, -1), skew.permute(0, 2, 1, 3).reshape(KERNEL * channels, -1))
    norms = [self._norm(matrix, u) for matrix, u in zip(matrices, self.u, strict=True)]
    twice = skew * (2 / (KERNEL * torch.minimum(*norms)))
    before, last = x, 0.5 * F.conv2d(x, twice, padding=KERNEL // 2)
    total = self.coefficients[0] * before + self.coefficients[1] * last
    for coefficient in self.coefficients[2:]:
      before, last = last, F.conv2d(last, twice, padding=KERNEL // 2) + before
      total = total + coefficient * last
    return total

  def _norm(self, matrix, u):
    with torch.no_grad():
      v = F.normalize(matrix.T @ u, dim=0)
      if self.training:
        u.copy_(F.normalize(matrix @ v, dim=0))
    return u @ matrix @ v


class Fourier(nn.Module):
  """One (semi-)orthogonal matrix a frequency, made of a small kernel's transform."""

  def __init__(self, rows, columns, orthogonal):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(rows, columns, KERNEL, KERNEL) / (3 * columns**0.5))
    self.orthogonal = orthogonal

  def forward(self, x):
    size = x.shape[2:]
    matrices = torch.fft.rfft2(self.weight, s=size).permute(2, 3, 0, 1)
    images = torch.fft.rfft2(x).permute(2, 3, 1, 0)
    return torch.fft.irfft2((self.orthogonal(matrices) @ images).permute(3, 2, 0, 1), s=size)


def polar(matrices, steps=10):
  """LOT by Newton's coupled iteration for (V V^*)^{-1/2}, as published, in the weights' type."""
  gram = matrices @ matrices.mH
  scale = torch.linalg.matrix_norm(gram, keepdim=True)
  y, identity = gram / scale, torch.eye(gram.shape[-1], dtype=gram.dtype)
  z = identity.expand_as(y)
  for _ in range(steps):
    middle = 1.5 * identity - 0.5 * z @ y
    y, z = y @ middle, middle @ z
  return z @ matrices / scale.sqrt()


def reflector(v):
  """BRO: I - 2 V (V^* V)^{-1} V^*."""
  return torch.eye(v.shape[-2], dtype=v.dtype) - 2 * v @ torch.linalg.solve(v.mH @ v, v.mH)


class CPL(nn.Module):
  """Convex potential layer: one power iteration on the convolution a step."""

  def __init__(self, channels, size):
    super().__init__()
    self.weight = nn.Parameter(
      torch.randn(channels, channels, KERNEL, KERNEL) / (3 * channels**0.5)
    )
    self.bias = nn.Parameter(torch.zeros(channels))
    self.u = nn.Parameter(torch.randn(1, channels, *size), requires_grad=False)

  def forward(self, x):
    pad = KERNEL // 2
    if self.training:
      with torch.no_grad():
        v = F.normalize(F.conv2d(self.u, self.weight, padding=pad).ravel(), dim=0)
        v = F.conv_transpose2d(v.reshape(self.u.shape), self.weight, padding=pad)
        self.u.copy_(v / v.norm())
    square = F.conv2d(self.u, self.weight, padding=pad).square().sum()
    hidden = F.relu(F.conv2d(x, self.weight, self.bias, padding=pad))
    return x - (2 / square) * F.conv_transpose2d(hidden, self.weight, padding=pad)


def layer(name, channels, size, coefficients=None):
  """(the peer's origin, module) of a layer of `orthogonal.py`."""
  if coefficients is not None:
    return 'written here', SOC(channels, coefficients)
  if name in ('LOT', 'BRO', 'CPL'):
    return 'written here', {
      'LOT': lambda: Fourier(channels, channels, polar),
      'BRO': lambda: Fourier(channels, channels // 2, reflector),
      'CPL': lambda: CPL(channels, size),
    }[name]()
  from orthogonium.layers.conv import AOC, AOL, SLL
  from orthogonium.legacy.cayley_ortho_conv import Cayley

  same = dict(padding=KERNEL // 2, padding_mode='circular')
  return 'orthogonium', {
    'BCOP': lambda: AOC.FastBlockConv2d(channels, channels, KERNEL, **same),
    'RKO': lambda: AOC.RKOConv2d(channels, channels, KERNEL, **same),
    'AOL': lambda: AOL.AOLConv2D(channels, channels, KERNEL, **same),
    'SLL': lambda: SLL.SDPBasedLipschitzResBlock(channels, 1),
    'Cayley': lambda: Cayley(channels, channels, KERNEL),
  }[name]()


class Chain(nn.Module):
  """As many bare convolutions as a layer makes."""

  def __init__(self, channels, count):
    super().__init__()
    weight = torch.randn(channels, channels, KERNEL, KERNEL) / (KERNEL * math.sqrt(channels))
    self.weight, self.count = nn.Parameter(weight), count

  def forward(self, x):
    for _ in range(self.count):
      x = F.conv2d(x, self.weight, padding=KERNEL // 2)
    return x


def runs(module, x):
  """{'forward': ..., 'step': ...}: evaluation, and the gradients of a sum of squares."""
  image = torch.tensor(x).permute(0, 3, 1, 2)  # NHWC memory: PyTorch's channels-last.

  def forward():
    module.eval()
    with torch.no_grad():  # Not inference mode: orthogonium's Cayley keeps what it makes here.
      module(image)

  def step():
    module.train()
    leaf = image.detach().requires_grad_()
    module.zero_grad()
    module(leaf).square().sum().backward()

  return {'forward': forward, 'step': step}
