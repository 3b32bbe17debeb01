"""The peers of poisoning.py: the same members trained in a loop in PyTorch."""

import os

import common
import numpy as np

_MOMENTUM = 0.9


def runs(initial, x, y, size):
  """name -> function that trains all members and returns their weights, stacked."""
  import torch

  torch.set_num_threads(1)  # Until `fastest_threads`.
  torch.backends.cuda.matmul.allow_tf32 = False
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  start = {name: torch.from_numpy(np.array(leaf)).to(device) for name, leaf in initial.items()}

  def all_members(train):
    def run():
      states = []
      for member in range(size.members):
        pixels = torch.from_numpy(x[member]).to(device).float() / 255
        pixels = (pixels - pixels.mean()) / pixels.std(correction=0)
        labels = torch.from_numpy(y[member]).long().to(device)
        weights = {name: leaf[member] for name, leaf in start.items()}
        states.append(train(torch, weights, pixels, labels, size))
      return {name: np.stack([state[name] for state in states]) for name in states[0]}

    return run

  return {'torch': all_members(_network), 'torch, span': all_members(_span)}


def fastest_threads(run):
  """Sets PyTorch to one thread or to all cores, whichever trains faster; returns the number.

  Products this small may lose more than they gain by being shared.
  """
  import torch

  run()
  taken = {}
  for threads in (1, os.cpu_count()):
    torch.set_num_threads(threads)
    taken[threads] = common.seconds(run)
  best = min(taken, key=taken.get)
  torch.set_num_threads(best)
  return best


def _network(torch, weights, x, y, size):
  """As one writes it: two layers, cross entropy, SGD with momentum."""
  nn = torch.nn
  first, last = nn.Linear(size.pixels, size.hidden), nn.Linear(size.hidden, size.classes)
  net = nn.Sequential(first, nn.ReLU(), last).to(x.device)
  with torch.no_grad():
    for layer, name in ((first, 'first'), (last, 'last')):
      layer.weight.copy_(weights[name].T)
      layer.bias.copy_(weights[f'{name}_bias'])
  tx = torch.optim.SGD(net.parameters(), lr=size.step_size, momentum=_MOMENTUM)
  for _ in range(size.steps):
    tx.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(net(x), y).backward()
    tx.step()
  return _numpy({
    'first': first.weight.T, 'first_bias': first.bias, 'last': last.weight.T, 'last_bias': last.bias
  })  # fmt: skip


def _span(torch, weights, x, y, size):
  """First layer W_0 + X^T A: the gradient in A is that in X W, not that of the chain rule."""
  start, gram = x @ weights['first'], x @ x.T
  span = torch.zeros_like(start)
  others = [weights[name].clone() for name in ('first_bias', 'last', 'last_bias')]
  values = [span, *others]
  velocity = [torch.zeros_like(value) for value in values]
  for _ in range(size.steps):
    inner = (start + gram @ values[0]).requires_grad_(True)
    bias, last, last_bias = (value.detach().requires_grad_(True) for value in values[1:])
    logits = torch.relu(inner + bias) @ last + last_bias
    loss = torch.nn.functional.cross_entropy(logits, y)
    slopes = torch.autograd.grad(loss, [inner, bias, last, last_bias])
    velocity = [_MOMENTUM * v + slope for v, slope in zip(velocity, slopes, strict=True)]
    values = [value - size.step_size * v for value, v in zip(values, velocity, strict=True)]
  names = ('first_bias', 'last', 'last_bias')
  return _numpy(
    {'first': weights['first'] + x.T @ values[0], **dict(zip(names, values[1:], strict=True))}
  )


def _numpy(state):
  return {name: leaf.detach().cpu().numpy() for name, leaf in state.items()}
