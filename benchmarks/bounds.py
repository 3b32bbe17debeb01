"""What do bounds on a network cost, against their floor and auto_LiRPA?

    python benchmarks/bounds.py            (--quick: a smoke run that writes nothing)

Lower bounds of all margins of an image, by intervals (IBP), CROWN-IBP, CROWN and alpha-CROWN with 10
steps; float32 as in training, and float64 rounded outwards as in a proof. The floor is a count of
forward passes over one image: 2 of IBP (centre and radius); one more for each margin of CROWN-IBP; of
CROWN two for each neuron before a ReLU, as deep as the neuron lies (intervals are exact in the first
layer); of alpha-CROWN two more for each margin and step. A forward pass is timed in turn with the bound, at
as many images as a backward pass has rows, 512 at most. The peer is auto_LiRPA (`bounds_torch.py`), where it is
installed. Ratios are medians of neighbouring runs, with their 95% intervals.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import pathlib

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import bounds, models, parallel, train
from certjax.bounds import _network

EPS, SIDE, STEPS, CHUNK = 0.01, 28, 10, 1024
LARGEST_BATCH = 512
FEWEST = 6  # Rounds of a run that is long: of fewer, no interval has a level of 95%.
ROUND_SECONDS = 6  # What all rounds of one comparison may take, unless they are the fewest.
METHODS = {
  'IBP': bounds.interval,
  'CROWN-IBP': functools.partial(bounds.crown, intermediate='interval', upper=False, chunk=CHUNK),
  'CROWN': functools.partial(bounds.crown, upper=False, chunk=CHUNK),
  'alpha-CROWN': functools.partial(bounds.crown, upper=False, chunk=CHUNK, num_steps=STEPS),
}
BACKWARD = ('CROWN', 'alpha-CROWN')  # They pass backwards from every neuron: one image at a time.
CASES = {
  'ibp-small': tuple(METHODS), 'ibp-medium': ('IBP', 'CROWN-IBP', 'CROWN'),
  'ibp-large': ('IBP', 'CROWN-IBP'),
}  # fmt: skip
CLASSES, DEPTHS, WIDTH = (10, 100, 1000), (2, 4, 8, 16), 100
TRAINING = {'clean': 1, 'ibp': 3, 'crown-ibp': 3 + 9}  # Clean images, centre and radius, margins.


@functools.cache
def network(name, side, num_classes=10):
  """(module, model_fn) with random weights; 'mlp-N' has N hidden layers."""
  if name.startswith('mlp'):
    hidden = (WIDTH,) * int(name.split('-')[1])
    module = models.FeedForward(num_classes, hidden=hidden, kernel_init='ibp')
  else:
    module = models.build(name, num_classes=num_classes)
  image = jnp.zeros((1, side, side, 1))
  return module, models.bind(module, jax.jit(module.init)(jax.random.key(0), image))


def images(batch, side):
  return np.random.default_rng(0).uniform(0.1, 0.9, (batch, side, side, 1)).astype(np.float32)


def floor(name, model_fn, side, num_classes):
  """Forward passes over one image that a method cannot do without."""
  steps = _network.trace(model_fn, jnp.zeros((side, side, 1))).nodes
  layers = [(np.prod(s.shape), np.prod(s.shape) * s.terms) for s in steps if s.terms > 2]
  work = np.cumsum([products for _, products in layers]) / sum(p for _, p in layers)
  inner = 2 * sum(size * share for (size, _), share in zip(layers[1:-1], work[1:-1], strict=True))
  margins = num_classes - 1
  return float({
    'IBP': 2, 'CROWN-IBP': 2 + margins, 'CROWN': 2 + inner + margins,
    'alpha-CROWN': 2 + inner + margins * (2 + 2 * STEPS),
  }[name])  # fmt: skip


def precision(verifying):
  """Float64 where a proof is made."""
  return parallel.x64() if verifying else contextlib.nullcontext()


def compiled(function, *arguments):
  """(run that blocks, MiB of temporary memory of the program)."""
  program = jax.jit(function).lower(*arguments).compile()
  memory = program.memory_analysis().temp_size_in_bytes / 2**20
  return lambda: jax.block_until_ready(program(*arguments)), memory


def margins_run(method, model_fn, x, num_classes, verifying=False):
  """(run, MiB) of lower bounds of the margins to the first class."""
  spec = bounds.margins(np.zeros(len(x), np.int32), num_classes)

  def lower(model_fn, x):
    region = bounds.ball(x, jnp.asarray(EPS, x.dtype))
    return METHODS[method](model_fn, region, spec.astype(x.dtype), outward=verifying)[0]

  return compiled(lower, model_fn, x)


def as_used(model_fn, x, verifying):
  """Weights and images of training, or of a proof."""
  return (bounds.widened(model_fn), jnp.asarray(x, jnp.float64)) if verifying else (model_fn, x)


def rounds(runs, pairs):
  """`common.interleaved`, with fewer rounds (`FEWEST` at least) of runs that are long."""
  once = sum(map(common.seconds, runs.values()))
  return common.interleaved(runs, pairs=min(pairs, max(FEWEST, int(ROUND_SECONDS / once))))


def ratio(name, times):
  """{name: median, low, high}."""
  middle, low, high = common.median_interval(times)
  return {name: middle, f'{name} low': low, f'{name} high': high}


def bound_row(name, method, verifying, batch, pairs, side=SIDE, num_classes=10):
  """One bound of one network against its floor."""
  batch = 1 if method in BACKWARD else batch
  _, model_fn = network(name, side, num_classes)
  passes = floor(method, model_fn, side, num_classes)
  rows = min(LARGEST_BATCH, batch if method == 'IBP' else int(batch * passes))
  with precision(verifying):
    wide, x = as_used(model_fn, images(batch, side), verifying)
    _, many = as_used(model_fn, images(rows, side), verifying)
    run, memory = margins_run(method, wide, x, num_classes, verifying)
    times = rounds({'bound': run, 'forward': compiled(lambda f, x: f(x), wide, many)[0]}, pairs)
  bound, forward = times['bound'] / batch, times['forward'] / rows
  return {
    'network': name, 'classes': num_classes, 'method': method,
    'in': 'float64, outward' if verifying else 'float32', 'images': batch,
    'ms an image': float(np.median(bound)) * 1e3, 'MiB': memory,
    'forward us': float(np.median(forward)) * 1e6, 'floor, passes': passes,
    **ratio('over floor', bound / (passes * forward)), 'rounds': len(bound),
  }  # fmt: skip


def training_row(name, batch, pairs, side=SIDE, kinds=tuple(TRAINING)):
  """Value and gradient of certified losses over those of cross-entropy."""
  module, model_fn = network(name, side)
  variables, x = model_fn.args[0], jnp.asarray(images(batch, side))
  y, keys = jnp.arange(batch) % 10, jax.random.split(jax.random.key(0), batch)
  runs = {}
  for kind in kinds:
    options = {} if kind == 'clean' else {'eps': EPS}
    loss = train.objective(kind, None, sigma=0.0, **options)['loss']

    def value(variables, x, loss=loss):
      apply = lambda x, train: (module.apply(variables, x, train=train), {})
      return loss(keys, apply, x, y, jnp.int32(0))[0]

    runs[kind] = compiled(jax.value_and_grad(value), variables, x)[0]
  times = rounds(runs, pairs)
  row = {'network': name, 'images': batch}
  row |= {f'{kind} ms': float(np.median(t)) * 1e3 for kind, t in times.items()}
  for kind in kinds[1:]:
    row |= {f'{kind} floor': TRAINING[kind]}
    row |= ratio(f'{kind} / clean', times[kind] / times['clean'])
  return row


def peer_row(name, method, batch, pairs, side=SIDE):
  """A bound beside auto_LiRPA's, on the same weights and images; and the bare forward passes."""
  import bounds_torch as peer

  module, model_fn = network(name, side)
  x, spec = images(batch, side), bounds.margins(np.zeros(batch, np.int32), 10)
  run, _ = margins_run(method, model_fn, x, 10)
  torchs = peer.sequential(module, model_fn.args[0]['params'])
  theirs, forward = peer.runs(torchs, x, EPS, spec, method)
  times = rounds({
    'ours': run, 'theirs': theirs, 'forward': compiled(lambda f, x: f(x), model_fn, x)[0],
    'torch forward': forward,
  }, pairs)  # fmt: skip
  gain = np.asarray(run()) - theirs()
  row = {'network': name, 'method': method, 'images': batch}
  row |= {f'{kind} ms': float(np.median(t)) * 1e3 for kind, t in times.items()}
  row |= ratio('theirs / ours', times['theirs'] / times['ours'])
  row |= ratio('torch forward / ours', times['torch forward'] / times['forward'])
  return row | {'tighter by, least': float(gain.min()), 'most': float(gain.max())}


def tables(pairs):
  """(title, rows), one after the other."""
  bound = functools.partial(bound_row, batch=8, pairs=pairs)
  cases = [(name, m, wide) for name, ms in CASES.items() for m in ms for wide in (False, True)]
  yield 'bounds', [bound(*case) for case in cases]
  cases = [(num_classes, m) for num_classes in CLASSES for m in ('IBP', 'CROWN-IBP')]
  yield 'classes', [bound('ibp-small', m, False, num_classes=k) for k, m in cases]
  cases = [(f'mlp-{depth}', m) for depth in DEPTHS for m in ('IBP', 'CROWN-IBP', 'CROWN')]
  yield 'depth', [bound(*case, False) for case in cases]
  yield 'training', [training_row(name, 32, pairs) for name in ('ibp-small', 'ibp-medium')]
  if has_peer():
    cases = [(name, m) for name in ('ibp-small', 'ibp-medium') for m in ('IBP', 'CROWN-IBP')]
    yield 'auto_LiRPA', [peer_row(*case, 8, pairs) for case in [*cases, ('ibp-small', 'CROWN')]]


def quick_tables(pairs=3, batch=2, side=12):
  """A little of each table, on small images."""
  small = 'ibp-small'
  yield 'bounds', [bound_row(small, m, False, batch, pairs, side) for m in ('CROWN-IBP', 'CROWN')]
  yield 'classes', [bound_row(small, 'IBP', True, batch, pairs, side)]
  yield 'depth', [bound_row('mlp-2', 'CROWN-IBP', False, batch, pairs, side)]
  yield 'training', [training_row(small, batch, pairs, side, ('clean', 'ibp'))]
  if has_peer():
    yield 'auto_LiRPA', [peer_row(small, 'CROWN-IBP', batch, pairs, side)]


def has_peer():
  return importlib.util.find_spec('auto_LiRPA') is not None


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  parser.add_argument('--quick', action='store_true')
  arguments = parser.parse_args()
  found = {}
  for title, rows in quick_tables() if arguments.quick else tables(arguments.pairs):
    found[title] = rows
    print(f'\n{title}')
    common.print_table(rows)
  if not has_peer():
    print('\nno peer: `pip install --no-deps auto_LiRPA appdirs` adds auto_LiRPA.')
  if not arguments.quick:
    write(found, arguments.pairs)


def write(found, pairs):
  versions = {}
  for name in ('torch', 'auto_LiRPA') if has_peer() else ():
    versions[name] = importlib.metadata.version(name)
  rows = [{'table': title, **row} for title, table in found.items() for row in table]
  question = 'cost of bounds on a network against their floor and auto_LiRPA'
  path = common.write_card('bounds', question, rows, pairs=pairs, eps=EPS, **versions)
  print(f'written to {pathlib.Path(path).name}')


if __name__ == '__main__':
  main()
