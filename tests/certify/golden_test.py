"""Golden votes: which noise a key, an image's index and a sample's number give, for ever.

Whoever changes how keys are derived, or how a sampler turns bits into noise, changes the records of
every run that is to be resumed. `golden.json` holds what was drawn and counted when it was
committed, for the laws that draw bits or integers, at parameters whose arithmetic is exact, and for
a model of integer weights; so the constants depend on no machine, device count or version of JAX.
Where a change is meant, and says so in the release notes, write them anew:

  python tests/certify/golden_test.py > tests/certify/golden.json
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, smoothing
from certjax.certify import _device, _randomized, _votes

FILE = pathlib.Path(__file__).with_name('golden.json')
KEY = jax.random.key(20_190_208)
SHAPE = (3, 2, 1)
INDEX = [0, 7, 49_999]


class Row(NamedTuple):
  """A law, the grid 0, 1 / steps, ..., 1 of its images, and a radius for the sequential test."""

  law: Any
  steps: int = 16
  radius: float = 0.01


# A law that draws bits or integers has its row here. At powers of two the others round nothing:
# their offsets are multiples of 2^-23, and so is what is made of them.
ROWS = {
  'gaussian-grid': Row(smoothing.gaussian(sigma=0.25, sampler='grid', shape=SHAPE), steps=255),
  'uniform': Row(smoothing.uniform(lam=0.5)),
  'splitting': Row(smoothing.splitting(lam=0.5)),
  'splitting-template': Row(smoothing.splitting(lam=0.5, joint='template', shape=SHAPE)),
  'discrete': Row(smoothing.discrete(keep=0.4, levels=16, shape=SHAPE), radius=1),
  'ablation': Row(smoothing.ablation(keep=2, shape=SHAPE), radius=1),
}
COUNTED = ('gaussian-grid', 'splitting', 'discrete')  # Keys are derived alike for every law.
VIEWS = smoothing.deterministic_splitting(lam=0.5, quantization=16, shape=SHAPE)
NAMES = (*ROWS, 'deterministic-splitting')
DRAWS = 5


def model_fn(x):
  """Integer logits of the grey levels; three classes, each with its share of the votes."""
  levels = jnp.round(255 * x.reshape(len(x), -1)).astype(jnp.int32)
  weights = np.random.RandomState(0).randint(-9, 10, size=(levels.shape[1], 3)).astype(np.int32)
  return levels @ weights


def images(steps):
  levels = np.random.RandomState(1).randint(steps + 1, size=(len(INDEX), *SHAPE))
  return levels.astype(np.float32) / np.float32(steps)


def drawn(row):
  """SHA-256 of the first samples of each image, with the key derivation written out."""
  noisy = []
  for index, x in zip(INDEX, images(row.steps), strict=True):
    image_key = jax.random.fold_in(KEY, index)
    noisy += [row.law.sample(jax.random.fold_in(image_key, number), x) for number in range(DRAWS)]
  return hashlib.sha256(np.asarray(noisy, '<f4').tobytes()).hexdigest()


def counted(row, road):
  """What a road to a certificate counts: lists of small integers."""
  arguments, options = (KEY, model_fn, row.law, images(row.steps)), {'index': INDEX, 'chunk': 32}
  if road == 'sequential':
    options |= {'radii': [row.radius], 'max_samples': 400, 'num_selection': 9}
    proof, samples = certify.sequential(*arguments, **options)
    return [proof.label.tolist(), samples.tolist()]
  if road == 'sampled_votes':
    options['num_selection'] = 9
    return [part.tolist() for part in certify.sampled_votes(*arguments, num_samples=200, **options)]
  return getattr(certify, road)(*arguments, num_samples=200, **options).tolist()


ROADS = ('votes', 'predict_votes', 'sampled_votes', 'sequential')


def golden(names=NAMES):
  """The constants of some laws, as they come out now."""
  found = {f'{name}: draws': drawn(ROWS[name]) for name in names if name in ROWS}
  for name in names:
    roads = ROADS if name in COUNTED else ()
    found |= {f'{name}: {road}': counted(ROWS[name], road) for road in roads}
  if 'deterministic-splitting' in names:
    counts, _ = certify.enumerated_counts(model_fn, VIEWS, images(VIEWS.quantization), chunk=32)
    found['deterministic-splitting: votes'] = counts.tolist()
  return found


def committed(names=NAMES):
  constants = json.loads(FILE.read_text())
  return {entry: value for entry, value in constants.items() if entry.split(': ')[0] in names}


@pytest.mark.parametrize('name', NAMES)
def test_what_was_committed_is_drawn_and_counted(name):
  assert golden([name]) == committed([name]) != {}


def test_nothing_else_is_committed():
  assert committed() == json.loads(FILE.read_text())


ON_FOUR = """
import jax, runpy, sys
assert jax.local_device_count() == 4
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


def test_four_devices_draw_and_count_the_same():
  names = 'splitting', 'deterministic-splitting'
  done = subprocess.run(
    [sys.executable, '-c', ON_FOUR, __file__, *names], check=True, capture_output=True, text=True,
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '4'},
  )  # fmt: skip
  assert json.loads(done.stdout) == committed(names)


@pytest.fixture
def replace(monkeypatch):
  """Replaces a function of the library; programs that were compiled of it are forgotten."""

  def replaced(module, name, make):
    monkeypatch.setattr(module, name, make(getattr(module, name)))
    _device._count.clear_cache()

  yield replaced
  monkeypatch.undo()
  _device._count.clear_cache()


def with_items(change):
  """The engine's items, their data set index, number and key changed."""

  def make(items):
    def changed(keys, images, table, start, *, chunk):
      segment, number, item_keys, x, extra = items(keys, images, table, start, chunk=chunk)
      row = jnp.minimum(segment, table.shape[1] - 1)
      slot, purpose = table[0, row], table[1, row]
      number, item_keys = change(keys[purpose], images[1][slot], number, item_keys)
      return segment, number, item_keys, x, extra

    return changed

  return make


FOLD = jax.vmap(jax.random.fold_in)


@pytest.mark.parametrize(
  'change',
  [
    pytest.param(lambda root, index, number, key: (number + 1, key), id='number from 1'),
    pytest.param(lambda root, index, number, key: (number, root), id='no index'),
    pytest.param(lambda root, index, number, key: (index, FOLD(root, number)), id='order'),
  ],
)
def test_index_number_and_their_order_matter(replace, change):
  right = committed()['splitting: votes']
  replace(_device, '_items', with_items(change))
  wrong = counted(ROWS['splitting'], 'votes')
  assert wrong != right


def test_the_derivation_as_it_is_written_down_changes_nothing(replace):
  """So that the changes above are what changes the votes, not the way they are made."""
  as_it_is = lambda root, index, number, key: (number, FOLD(root, index))
  replace(_device, '_items', with_items(as_it_is))
  assert counted(ROWS['splitting'], 'votes') == committed()['splitting: votes']


def test_purposes_and_the_root_key_matter(replace, monkeypatch):
  right = {road: counted(ROWS['splitting'], road) for road in ROADS}
  monkeypatch.setattr(_randomized, 'PREDICTION', _randomized.PREDICTION + 1)
  assert counted(ROWS['splitting'], 'predict_votes') != right['predict_votes']
  rolled = lambda count: lambda keys, *rest: count([*keys[1:], keys[0]], *rest)
  replace(_votes, 'count_votes', rolled)
  for road in ('sampled_votes', 'sequential'):
    assert counted(ROWS['splitting'], road) != right[road], road
  monkeypatch.setitem(globals(), 'KEY', jax.random.key(1))
  assert counted(ROWS['splitting'], 'votes') != right['votes']


def main(names):
  """Prints constants, one a line."""
  found = golden(names or NAMES)
  lines = [f'  {json.dumps(name)}: {json.dumps(value)}' for name, value in found.items()]
  print('{\n' + ',\n'.join(lines) + '\n}')


if __name__ == '__main__':
  main(sys.argv[1:])
