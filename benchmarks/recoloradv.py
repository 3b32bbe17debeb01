"""Are the lecture's numbers of ReColorAdv and its combinations on CIFAR-10 found again, on the published network?

    python benchmarks/recoloradv.py --weights FILE --trained-weights FILE --data-dir DIR

The row "None" (no defence) of Laidlaw & Feizi's table: their ResNet-32 without defence, as published, on 200 evenly
spaced test images of CIFAR-10. C recolours (.06 a channel, CIELUV), S moves pixels (.05), D adds up to 8 / 255 a value;
combinations are optimised jointly. Adam .001, 100 steps, the margin less .05 times the variation of C and S, as
published, on their grid of absolute colours (`compat=True`), and the last image of each search, as theirs returns. Then
what that gives away: C and C + S with the best image of the search, and C on our grid, whose identity changes no
colour. With the exact 95% interval of our share. Every finished row lies in OUT and is not made again. The
settings stood before the run.
"""

import argparse
import importlib.util
import json
import pathlib

import common
import jax
import numpy as np
from scipy import stats

NUM_IMAGES = 200
TRAINED, PEER = 'C, on the network trained against C', 'C, on PyTorch'
PUBLISHED = {'C': 3.3, 'C + D': 0.0, 'C + S': 0.9, 'S + D': 0.0, 'C + S + D': 0.0}
PUBLISHED |= {TRAINED: 45.8, PEER: PUBLISHED['C']}


def searches():
  """name -> `Search`: the five of the recipe recoloradv-combinations, then with the best image of each search."""
  from certjax.attacks import functional
  from certjax.reproduce import PUBLISHED_SIZES, Search, published_searches

  found = published_searches()
  found |= {f'{name}, best': found[name]._replace(keep='best') for name in ('C', 'C + S')}
  own = Search(functional.recolor(PUBLISHED_SIZES.colour), keep='best')
  return {**found, 'C, identity-safe, best': own}


def broken_and_moved(model_fn, search, x, y):
  """(bool[N] right under attack, float[N] largest change of a value)."""
  from certjax.reproduce import after_search

  right, moved = [], []
  key, index = jax.random.key(0), np.arange(len(x))
  for rows, predict, change in after_search(key, model_fn, search, x, y, index):
    right.append(predict == y[rows])
    moved.append(change)
    print(f'{rows.stop} of {len(x)}: {np.concatenate(right).mean():.3f}', flush=True)
  return np.concatenate(right), np.concatenate(moved)


def row(name, right, moved, clean):
  """Of bool[N] right under attack, float[N] largest change or None, bool[N] right without attack."""
  y, right = clean, right & clean
  interval = stats.binomtest(int(right.sum()), len(y)).proportion_ci(0.95, 'exact')
  published = PUBLISHED.get(name)
  inside = '-' if published is None else bool(interval.low <= published / 100 <= interval.high)
  return {
    'attack': name,
    'accuracy': float(right.mean()),
    '95% interval': f'{interval.low:.3f} to {interval.high:.3f}',
    'published': '-' if published is None else f'{published}%',
    'published in interval': inside,
    'median largest change': '-' if moved is None else float(np.median(moved)),
    'clean': float(clean.mean()),
    'images': len(y),
  }


def committed():
  """name -> row of the card, with the commit that it was made at."""
  card = json.loads((common.RESULTS / 'recoloradv.json').read_text())
  return {row['attack']: {'commit': card['versions']['commit'], **row} for row in card['rows']}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--weights', required=True)
  parser.add_argument('--trained-weights', required=True)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/recoloradv'))
  parser.add_argument(
    '--keep', action='store_true', help='rows of the committed card stay as they are'
  )
  arguments = parser.parse_args()
  from certjax import data, models
  from certjax.reproduce import (
    NETWORK_MEAN,
    NETWORK_STD,
    PENALTY,
    PUBLISHED_SIZES,
    STEP_SIZE,
    STEPS,
  )

  arguments.out.mkdir(parents=True, exist_ok=True)
  module = models.ResNet(num_classes=10, depth=32, mean=NETWORK_MEAN, std=NETWORK_STD)
  evenly = data.subset(data.dataset('cifar10').sizes['test'], evenly=NUM_IMAGES)
  images = data.load('cifar10', 'test', data_dir=arguments.data_dir, indices=evenly)
  x, y = data.to_float(images.images), np.asarray(images.labels)

  def network(weights):
    """The model and where it is right without attack."""
    model_fn = models.bind(module, models.load_weights(weights, module))
    clean = np.asarray(jax.jit(lambda f, x: f(x).argmax(axis=1))(model_fn, x)) == y
    print(f'{weights}, clean: {clean.mean():.3f}', flush=True)
    return model_fn, clean

  model_fn, clean = network(arguments.weights)
  trained, trained_clean = network(arguments.trained_weights)
  todo = searches()
  runs = {
    name: lambda search=search: (*broken_and_moved(model_fn, search, x, y), clean)
    for name, search in todo.items()
  }
  runs[TRAINED] = lambda: (*broken_and_moved(trained, todo['C'], x, y), trained_clean)
  if importlib.util.find_spec('torch'):
    import recoloradv_peer

    settings = dict(bound=PUBLISHED_SIZES.colour, steps=STEPS, step_size=STEP_SIZE, penalty=PENALTY)
    peer = lambda: recoloradv_peer.right_under_attack(arguments.weights, x, y, **settings)
    runs[PEER] = lambda: (peer(), None, clean)
  kept = committed() if arguments.keep else {}
  rows = []
  for name, run in runs.items():
    if name in kept:
      rows.append(kept[name])
      continue
    path = arguments.out / f'{name.replace(" ", "").replace(",", "-")}.json'
    if not path.exists():
      path.write_text(json.dumps(row(name, *run())))
    rows.append({**json.loads(path.read_text()), 'commit': common.versions()['commit']})
  table = common.markdown([{key: row[key] for key in row if key != 'commit'} for row in rows])
  question = f'Recolouring, flow and additive changes on {NUM_IMAGES} CIFAR-10 test images'
  common.write_card('recoloradv', question, rows, table=table)
  print(table)


if __name__ == '__main__':
  main()
