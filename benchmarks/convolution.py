"""Does the gradient of a convolution stay fast inside a loop?

    python benchmarks/convolution.py

The gradient of one ResNet-20 stage's convolutions with respect to input and kernel, by call and as
the body of `lax.scan`, for `layers.conv_general_dilated` and for JAX's own. The guarded figure: ours
in a scan costs at most 1.3 times ours by call.
"""

import argparse

import common
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from certjax import layers

CASES = {  # name: (image, kernel, strides)
  '32x32x16, 3x3': ((32, 32, 32, 16), (3, 3, 16, 16), (1, 1)),
  '32x32x16 stride 2, 3x3': ((32, 32, 32, 16), (3, 3, 16, 32), (2, 2)),
  '8x8x64, 3x3': ((32, 8, 8, 64), (3, 3, 64, 64), (1, 1)),
}
STEPS = 4


def gradient(conv, strides):
  """(x, w) -> gradients of sum(tanh(conv(x, w)))."""
  dimensions = ('NHWC', 'HWIO', 'NHWC')

  def loss(x, w):
    return jnp.sum(jnp.tanh(conv(x, w, strides, 'SAME', None, None, dimensions)))

  return jax.grad(loss, (0, 1))


def by_call(conv, strides):
  """STEPS calls of one jitted gradient step."""
  step = jax.jit(lambda x, w: _moved(gradient(conv, strides), x, w))

  def run(x, w):
    for _ in range(STEPS):
      x, w = step(x, w)
    return jax.block_until_ready((x, w))

  return run


def in_scan(conv, strides):
  """The same steps as one jitted scan."""

  @jax.jit
  def scanned(x, w):
    body = lambda carry, _: (_moved(gradient(conv, strides), *carry), None)
    return lax.scan(body, (x, w), length=STEPS)[0]

  return lambda x, w: jax.block_until_ready(scanned(x, w))


def _moved(grad, x, w):
  dx, dw = grad(x, w)
  return x + 1e-3 * dx, w + 1e-3 * dw


def measure(name, pairs):
  """One row: milliseconds a step of the four, and both ratios."""
  image, kernel, strides = CASES[name]
  rng = np.random.default_rng(0)
  x, w = (jnp.asarray(rng.normal(size=s).astype(np.float32)) for s in (image, kernel))
  ours, jaxs = layers.conv_general_dilated, lax.conv_general_dilated
  ways = {
    'ours by call': by_call(ours, strides), 'ours in scan': in_scan(ours, strides),
    'jax by call': by_call(jaxs, strides), 'jax in scan': in_scan(jaxs, strides),
  }  # fmt: skip
  runs = {way: (lambda run=run: run(x, w)) for way, run in ways.items()}
  times = common.interleaved(runs, pairs=pairs)
  row = {'case': name}
  row |= {f'{way} ms': float(np.median(t)) / STEPS * 1e3 for way, t in times.items()}
  ratio, low, high = common.median_interval(times['ours in scan'] / times['ours by call'])
  row |= {'ours scan/call': ratio, 'low': low, 'high': high}
  return row | {'jax scan/call': float(np.median(times['jax in scan'] / times['jax by call']))}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  arguments = parser.parse_args()
  rows = [measure(name, arguments.pairs) for name in CASES]
  common.print_table(rows)
  question = 'gradient of a convolution in a scan against by call'
  common.write_card('convolution', question, rows, pairs=arguments.pairs)


if __name__ == '__main__':
  main()
