"""What do the 1-Lipschitz layers cost, beside plain convolutions and beside PyTorch?

    python benchmarks/orthogonal.py            (--quick: a smoke run that writes nothing)

Each layer at two shapes, 3 x 3 kernels, batch 32: evaluation (`forward`, from the parameters;
`cached`, materialized), and a training step (value and gradient of a sum of squares, to parameters and image;
`train=True`). Peers are `orthogonium` where it runs on a CPU, else the same algorithm in PyTorch
(`orthogonal_peers.py`). Functions run in turn, on all cores; ratios are medians of neighbouring runs, with
their 95% intervals.

Guarded: the series costs at most 1.15 times its convolutions, its gradient 1.3 times their gradients;
Chebyshev's 8 terms 0.9 times Taylor's 11; the gradient's memory does not grow with the degree.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import layers

SHAPES = {'16x16x64': (32, 16, 16, 64), '32x32x32': (32, 32, 32, 32)}
QUICK = {'8x8x16': (4, 8, 8, 16)}
KERNEL, BOUND = 3, 1.8
SERIES = {'SOC taylor 5': ('taylor', 5), 'SOC chebyshev 8': ('chebyshev', 8),
          'SOC taylor 11': ('taylor', 11)}  # fmt: skip
LAYERS = {
  **{
    name: lambda c, series=series, degree=degree: layers.SOC(
      c, series=series, train_degree=degree, eval_degree=degree, use_bias=False
    )
    for name, (series, degree) in SERIES.items()
  },
  'BCOP': layers.BCOP, 'Cayley': layers.Cayley, 'LOT': layers.LOT, 'RKO': layers.RKO,
  'AOL': layers.AOL, 'SLL': layers.SLL, 'CPL': layers.CPL, 'BRO': layers.BRO,
}  # fmt: skip
CONVOLUTIONS = {name: degree for name, (_, degree) in SERIES.items()} | {'SLL': 2, 'CPL': 2}
SAME_ACCURACY = ((1.8, ('chebyshev', 8), ('taylor', 11)), (3.0, ('chebyshev', 10), ('taylor', 14)))
DEGREES = (5, 11, 20, 40)
LIMITS = {'series': 1.15, 'series gradient': 1.3, 'chebyshev': 0.9, 'memory': 1.1}


def images(shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def filters(shape, bound=BOUND):
  """A random skew filter whose norm is at most `bound`."""
  kernel = np.random.default_rng(1).normal(size=(KERNEL, KERNEL, shape[-1], shape[-1]))
  skew = layers.skew_filter(kernel)
  return jnp.asarray(skew * (bound / layers.norm_upper(skew)), jnp.float32)


def plain(kernel, x, count):
  """As many bare convolutions in a row."""
  for _ in range(count):
    x = layers.conv_general_dilated(x, kernel, (1, 1), 'SAME', precision='highest')
  return x


def compiled(function, *arguments):
  """(run that blocks, MiB of temporary memory of the program)."""
  program = jax.jit(function).lower(*arguments).compile()
  memory = program.memory_analysis().temp_size_in_bytes / 2**20
  return lambda: jax.block_until_ready(program(*arguments)), memory


def gradient(function):
  """Value and gradients of a sum of squares."""
  return jax.value_and_grad(lambda *arguments: jnp.sum(function(*arguments) ** 2), (0, 1))


def ratio(name, times, over):
  """{name: median, low, high} of times / over."""
  middle, low, high = common.median_interval(times / over)
  return {name: middle, f'{name} low': low, f'{name} high': high}


def milliseconds(times):
  return float(np.median(times)) * 1e3


def layer_runs(name, shape):
  """(forward, cached, step, MiB of the step) of one layer."""
  x, module = jnp.asarray(images(shape)), LAYERS[name](shape[-1])
  variables = jax.jit(module.init)(jax.random.key(0), x)
  params = variables['params']
  rest = {kind: tree for kind, tree in variables.items() if kind != 'params'}

  def trained(params, x):
    return module.apply({**rest, 'params': params}, x, train=True, mutable=['spectral'])[0]

  forward, _ = compiled(module.apply, variables, x)
  cached = layers.materialize(module, variables)
  step, memory = compiled(gradient(trained), params, x)
  return forward, compiled(lambda f, x: f(x), cached, x)[0], step, memory


def layer_row(name, where, shape, pairs):
  """One layer beside its convolutions and its peer."""
  import orthogonal_peers as peers

  x, kernel, count = jnp.asarray(images(shape)), filters(shape), CONVOLUTIONS.get(name, 1)
  forward, cached, step, memory = layer_runs(name, shape)
  chain = lambda kernel, x: plain(kernel, x, count)
  coefficients = None
  if name in SERIES:
    series, degree = SERIES[name]
    power = layers.polynomial(series, degree, BOUND)
    coefficients = layers.recurrence_coefficients(power, BOUND).tolist()
  origin, module = peers.layer(name, shape[-1], shape[1:3], coefficients)
  torchs = peers.runs(module, images(shape))
  bare = peers.runs(peers.Chain(shape[-1], count), images(shape))
  times = common.interleaved(
    {
      'forward': forward, 'cached': cached, 'convs': compiled(chain, kernel, x)[0],
      'step': step, 'convs step': compiled(gradient(chain), kernel, x)[0],
      'torch': torchs['forward'], 'torch step': torchs['step'],
      'torch convs': bare['forward'], 'torch convs step': bare['step'],
    }, pairs=pairs,
  )  # fmt: skip
  row = {'layer': name, 'shape': where, 'convolutions': count}
  row |= {f'{kind} ms': milliseconds(t) for kind, t in times.items()}
  row |= {'step MiB': memory, 'peer': origin}
  for kind in ('forward', 'cached'):
    row |= ratio(f'{kind} / convs', times[kind], times['convs'])
  row |= ratio('step / convs step', times['step'], times['convs step'])
  for kind, mine in (('', 'forward'), (' step', 'step')):
    row |= ratio(f'torch{kind} / ours', times[f'torch{kind}'], times[mine])
    row |= ratio(f'torch convs{kind} / ours', times[f'torch convs{kind}'], times[f'convs{kind}'])
  return row


def bare_row(where, shape, pairs):
  """One bare convolution in both frameworks: what the ratios above start from."""
  import orthogonal_peers as peers

  x, kernel = jnp.asarray(images(shape)), filters(shape)
  chain = lambda kernel, x: plain(kernel, x, 1)
  theirs = peers.runs(peers.Chain(shape[-1], 1), images(shape))
  ours = {
    'ours': compiled(chain, kernel, x)[0],
    'ours step': compiled(gradient(chain), kernel, x)[0],
  }
  torchs = {'torch': theirs['forward'], 'torch step': theirs['step']}
  times = common.interleaved({**ours, **torchs}, pairs=pairs)
  row = {'shape': where} | {f'{kind} ms': milliseconds(t) for kind, t in times.items()}
  row |= ratio('torch / ours', times['torch'], times['ours'])
  return row | ratio('torch step / ours', times['torch step'], times['ours step'])


def series_row(name, where, shape, pairs):
  """The series alone, without normalisation, against its convolutions; both gradients."""
  x, kernel = jnp.asarray(images(shape)), filters(shape)
  series, degree = SERIES[name]
  chain = lambda kernel, x: plain(kernel, x, degree)

  def power(kernel, x, grad='exact'):
    return layers.conv_exponential(
      x, kernel, degree=degree, series=series, bound=BOUND, grad=grad
    )  # fmt: skip

  approximate = lambda kernel, x: power(kernel, x, 'approx')
  runs = {'series': power, 'convs': chain, 'series gradient': gradient(power),
          'approximate gradient': gradient(approximate), 'convs gradient': gradient(chain)}  # fmt: skip
  times = common.interleaved(
    {kind: compiled(function, kernel, x)[0] for kind, function in runs.items()}, pairs=pairs
  )
  row = {'series': name, 'shape': where}
  row |= {f'{kind} ms': milliseconds(t) for kind, t in times.items()}
  row |= ratio('series / convs', times['series'], times['convs'])
  for kind in ('series gradient', 'approximate gradient'):
    row |= ratio(f'{kind} / convs gradient', times[kind], times['convs gradient'])
  return row


def truncation_error(series, degree, bound):
  """max |p(i theta) - exp(i theta)|, |theta| <= bound, on a grid."""
  theta = np.linspace(0, bound, 2001)
  powers = [float(a) for a in layers.polynomial(series, degree, bound)]
  return float(np.abs(np.polyval(powers[::-1], 1j * theta) - np.exp(1j * theta)).max())


def accuracy_row(bound, ours, other, where, shape, pairs):
  """Two series of about one error: their times."""
  x, kernel = jnp.asarray(images(shape)), filters(shape, bound)
  run = lambda series, degree: compiled(
    lambda kernel, x: layers.conv_exponential(x, kernel, degree=degree, series=series, bound=bound),
    kernel, x,
  )[0]  # fmt: skip
  times = common.interleaved({'ours': run(*ours), 'other': run(*other)}, pairs=pairs)
  names = [f'{series} {degree}' for series, degree in (ours, other)]
  row = {'bound': bound, 'shape': where, 'series': names[0], 'instead of': names[1]}
  row |= {'error': truncation_error(*ours, bound), 'its error': truncation_error(*other, bound)}
  return row | ratio('time', times['ours'], times['other'])


def memory_functions(degree):
  power = lambda kernel, x: layers.conv_exponential(x, kernel, degree=degree, bound=BOUND)
  return {'exact': gradient(power), 'autodiff': gradient(lambda k, x: _horner(k, x, degree))}


def _horner(kernel, x, degree):
  """The same polynomial as published, left to JAX's differentiation."""
  total = x
  for i in range(degree, 0, -1):
    total = x + plain(kernel / i, total, 1)
  return total


def memory_row(degree, shape):
  """MiB of the gradient: the compiled program's temporaries, and a process's peak over its start."""
  row = {'degree': degree}
  for way in ('exact', 'autodiff'):
    done = subprocess.run(
      [sys.executable, __file__, '--peak-of', way, str(degree), *map(str, shape)],
      check=True, capture_output=True, text=True,
    )  # fmt: skip
    peak, temporary = map(float, done.stdout.split())
    row |= {f'{way} MiB': temporary, f'{way} process MiB': peak}
  return row


def peak_of(way, degree, *shape):
  """Prints the growth of this process's peak by one gradient, and the program's own figure."""
  x, kernel = jnp.asarray(images(shape)), filters(shape)
  run, temporary = compiled(memory_functions(degree)[way], kernel, x)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  run()
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print((after - before) / 2**10, temporary)  # Linux counts KiB.


def targets(series, accuracy, memory):
  """Each guarded figure at its worst, with its limit."""
  worst = lambda rows, name: max(rows, key=lambda row: row[name])[name]
  # From 11 terms on: below, fewer terms are kept than the gradient may.
  flat = memory[-1]['exact MiB'] / memory[1]['exact MiB']
  found = {
    'series': worst(series, 'series / convs'),
    'series gradient': worst(series, 'series gradient / convs gradient'),
    'chebyshev': worst(accuracy, 'time'),
    'memory': flat,
  }
  return [
    {'target': name, 'worst': value, 'limit': LIMITS[name], 'met': value <= LIMITS[name]}
    for name, value in found.items()
  ]


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  parser.add_argument('--quick', action='store_true')
  parser.add_argument('--peak-of', nargs='+', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.peak_of:
    way, *numbers = arguments.peak_of
    return peak_of(way, *map(int, numbers))
  import torch

  torch.manual_seed(0)
  torch.set_num_threads(os.cpu_count())
  quick = arguments.quick
  tables = {}
  for title, rows in _tables(quick, 3 if quick else arguments.pairs):
    tables[title] = rows
    print(f'\n{title}')
    common.print_table(rows)
  if not quick:
    _write(tables, arguments.pairs, torch.__version__)


def _tables(quick, pairs):
  """(title, rows), one after the other; targets mean nothing at the smoke run's size."""
  cases = list((QUICK if quick else SHAPES).items())
  yield 'bare convolution', [bare_row(*case, pairs) for case in cases]
  series = [series_row(name, *case, pairs) for name in SERIES for case in cases]
  yield 'series', series
  accuracy = [accuracy_row(*pair, *case, pairs) for pair in SAME_ACCURACY for case in cases]
  yield 'one accuracy', accuracy
  batch, *rest = cases[-1][1]
  memory = [memory_row(degree, (4 * batch, *rest)) for degree in DEGREES[: 2 if quick else None]]
  yield 'memory of the gradient', memory
  if not quick:
    yield 'targets', targets(series, accuracy, memory)
  names = ('SOC taylor 5', 'BCOP', 'AOL') if quick else LAYERS
  yield 'layers', [layer_row(name, *case, pairs) for name in names for case in cases]


def _write(tables, pairs, version):
  from importlib import metadata

  more = {'pairs': pairs, 'torch': version, 'orthogonium': metadata.version('orthogonium')}
  rows = [{'table': title, **row} for title, table in tables.items() for row in table]
  question = 'cost of the 1-Lipschitz layers beside plain convolutions and PyTorch'
  path = common.write_card('orthogonal', question, rows, **more)
  print(f'written to {pathlib.Path(path).name}')


if __name__ == '__main__':
  main()
