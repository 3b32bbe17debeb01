"""A small study: two attacks on six images of 8 x 8 pixels."""

import numpy as np
import pytest

from certjax import study

INSTRUCTIONS = 'Look closely.\nThen answer.'


def condition(attack='pgd', bound=0.1, count=6, shift=20, distance=1.0, first=0):
  rng = np.random.default_rng(0)
  originals = rng.integers(0, 200, (count, 8, 8, 1)).astype(np.uint8)
  return study.Condition(
    attack, bound, 'pixel value', np.arange(first, first + count), np.arange(count) % 3, originals,
    originals + np.uint8(shift), {'l2': distance * np.arange(1, count + 1)},
  )  # fmt: skip


@pytest.fixture
def make_condition():
  return condition


@pytest.fixture
def batches():
  """Two batches of nine: six adversarial pairs at most, at least one identical pair, two sentinels."""
  return study.compose(
    [condition(), condition('fgsm', 0.2, shift=50, distance=2.0)],
    batch_size=9, num_identical=1, num_sentinels=2,
  )  # fmt: skip


@pytest.fixture
def built(batches, tmp_path):
  """The directory of that study; images are shown for 0.2 s."""
  study.build(
    tmp_path / 'study', batches, title='Same </script>?', instructions=INSTRUCTIONS, price=0.01,
    seconds=0.2, gap=0.05, max_batches=2,
  )  # fmt: skip
  return tmp_path / 'study'


@pytest.fixture
def answer():
  """`answer(key, worker, batch, sees)`: what a worker sends, who calls a pair different where `sees(truth)`."""

  def make(key, worker, batch, sees=lambda truth: not truth['truth_same']):
    names = key['settings']['batches'][batch - 1]
    answers = [
      {
        'pair': name, 'answer': 'different' if sees(key['pairs'][name]) else 'same',
        'milliseconds': 700,
      }
      for name in names
    ]  # fmt: skip
    return {'worker': worker, 'batch': batch, 'answers': answers}

  return make
