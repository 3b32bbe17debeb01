"""Uniform and splitting noise: accuracies are counts over records, radii the formulas at their votes."""

import json
import math

import jax
import numpy as np
import pytest
from scipy import stats

from certjax import configs, reproduce, train
from certjax.reproduce import _certified, _splitting_noise

PLAN = _splitting_noise.Plan('digits', (0.25, 0.5), 6, 300, {})


@pytest.fixture
def request_in(tmp_path, data_dir):
  """A quick request."""
  presets = {name: preset for name, (_, preset) in configs.PRESETS.items()}
  return reproduce.Request('quick', tmp_path / 'out', 1, data_dir, presets=presets)


@pytest.fixture
def found(monkeypatch, request_in, trained):
  """(Result, its records), on a network that is trained already."""

  def already(request, preset, name, noise, **changed):
    run = train.load_run(trained)
    assert changed['method'] in configs.METHODS and preset in request.presets
    return run._replace(config={**run.config, **changed})

  monkeypatch.setattr(_splitting_noise, 'trained', already)
  result = _splitting_noise.run('cifar10', request_in, plan=PLAN)
  records = {}
  for path in request_in.out.glob('*/records.jsonl'):
    records[path.parent.name] = [json.loads(line) for line in path.read_text().splitlines()[1:]]
  return result, records


def test_accuracies_are_counts_and_radii_are_the_formulas(found):
  result, records = found
  assert len(records) == 6 and all(len(lines) == 6 for lines in records.values())
  for row in result.rows:
    method, radius = row.number.split(', r = ')
    right = [
      sum(one['predict'] == one['label'] and one['radius'] >= float(radius) for one in lines)
      for name, lines in records.items()
      if name.rsplit('-', 1)[0] == method
    ]
    assert row.ours == max(right) / 6 and reproduce.verdict(row) == 'another setting'
    assert (row.dataset, row.published.dataset, row.seed) == ('digits', 'cifar10', 1)
  assert max(row.ours for row in result.rows) > 0
  for name, lines in records.items():
    method, sigma = name.rsplit('-', 1)
    width = 2 * math.sqrt(3) * float(sigma)
    for one in lines:
      if method == 'deterministic-splitting':
        steps = one['radius'] * 255
        assert one['count'] + one['runner_up_count'] <= int(width * 255)
        gap = one['count'] - one['runner_up_count']
        assert steps == pytest.approx(gap // 2) or steps == pytest.approx((gap - 1) // 2)
      else:
        p_a = stats.beta.ppf(1e-3, one['count'], 300 - one['count'] + 1)
        assert one['radius'] == pytest.approx(max(width * (p_a - 0.5), 0), abs=1e-6)


def test_published_radii_have_a_row_for_each_noise(found):
  result, _ = found
  assert [row.published.value for row in result.rows[::8]] == [0.7054, 0.7083, 0.7225]
  assert len(result.rows) == 24 and [panel.title for panel in result.figure] == [
    'digits, sigma = 0.25', 'digits, sigma = 0.5',
  ]  # fmt: skip
  exact = [row for row in result.rows if 'every view' in row.setting]
  assert {row.number.split(',')[0] for row in exact} == {'deterministic-splitting'}
  both = {
    reproduce.published(f'l1-{method}-imagenet', 'r = 4.0').value
    for method in _splitting_noise.NOISES
  }
  assert both == {0.148, 0.352, 0.332}


def test_a_classifier_is_trained_once_and_goes_on(request_in):
  config = {'method': 'none', 'objective': 'clean', 'num_epochs': 1, 'max_steps': 2}
  first = _certified.trained(request_in, 'digits', 'one', **config)
  assert first.step == 2 and first.config['seed'] == 1
  again = _certified.trained(request_in, 'digits', 'one', **config)
  jax.tree.map(np.testing.assert_array_equal, first.variables, again.variables)
  with pytest.raises(ValueError, match='another config: num_epochs is 1 there and 2 here'):
    _certified.trained(request_in, 'digits', 'one', **{**config, 'num_epochs': 2})
