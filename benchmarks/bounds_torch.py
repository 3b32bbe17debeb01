"""The bounds of `bounds.py` by auto_LiRPA in PyTorch.

auto_LiRPA 0.3 asks for torch < 1.13: `pip install --no-deps auto_LiRPA appdirs` takes it beside a newer one, and what has
since been moved or removed in numpy and PyTorch is put back here (`restored`); none of it runs while a bound is made.
"""

import importlib
import os
import sys
import types

import numpy as np
import torch
from torch import nn


def restored():
  """auto_LiRPA, with the names that it imports."""
  # By their paths: torch.onnx has other modules under these names.
  helper, utils = (
    importlib.import_module(f'torch.onnx.{name}') for name in ('symbolic_helper', 'utils')
  )
  from torch.onnx._internal.torchscript_exporter import utils as exporter
  from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

  moved = types.ModuleType('numpy.lib.arraysetops')
  moved.isin = np.isin
  sys.modules.setdefault(moved.__name__, moved)
  utils._optimize_graph = exporter._optimize_graph
  helper._set_opset_version = lambda version: setattr(GLOBALS, 'export_onnx_opset_version', version)
  torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)
  import auto_LiRPA

  return auto_LiRPA


def sequential(module, params):
  """A `models.FeedForward` without padding, with its weights, as an `nn.Sequential`."""
  layers = []
  for features, size, strides in module.convolutions:
    kernel = np.asarray(params[str(len(layers))]['kernel'])
    layers += [
      nn.Conv2d(kernel.shape[2], features, size, strides),
      nn.ReLU(),
    ]
  layers.append(nn.Flatten())
  for _ in (*module.hidden, module.num_classes):
    layers += [nn.Linear(*np.shape(params[str(len(layers))]['kernel'])), nn.ReLU()]
  network = nn.Sequential(*layers[:-1])
  for number, leaves in params.items():
    kernel = np.array(leaves['kernel'])
    kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    state = {'weight': torch.tensor(kernel), 'bias': torch.tensor(np.array(leaves['bias']))}
    network[int(number)].load_state_dict(state)
  return network.eval()


def runs(network, x, eps, spec, method):
  """(lower bounds of the rows of `spec`, the bare forward pass), each to be called."""
  library = restored()
  torch.set_num_threads(os.cpu_count())
  image, rows = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(np.array(spec))
  bounded = library.BoundedModule(network, torch.zeros_like(image))
  around = library.PerturbationLpNorm(norm=np.inf, eps=eps)
  ball = library.BoundedTensor(image, around)

  def lower():
    with torch.no_grad():
      return bounded.compute_bounds(x=(ball,), C=rows, method=method, bound_upper=False)[0].numpy()

  def forward():
    with torch.no_grad():
      return network(image).numpy()

  return lower, forward
