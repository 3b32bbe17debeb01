"""benchmarks/reproduced.py: what is kept of a recipe, the page of all, and what `check` sees."""

import importlib.util
import json
import pathlib
import sys

import pytest

from certjax import reproduce

BENCHMARKS = pathlib.Path(__file__).parent.parent / 'benchmarks'


@pytest.fixture
def reproduced(monkeypatch, tmp_path):
  """The script, whose results lie in a directory of the test."""
  monkeypatch.syspath_prepend(str(BENCHMARKS))
  spec = importlib.util.spec_from_file_location('reproduced', BENCHMARKS / 'reproduced.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  monkeypatch.setattr(module, 'FOLDER', tmp_path / 'kept')
  monkeypatch.setattr(module, 'PAGE', tmp_path / 'kept' / 'README.md')
  yield module
  sys.modules.pop('common', None)


@pytest.fixture
def kept(reproduced, command, tmp_path):
  """The result of a recipe that takes no time."""
  out = tmp_path / 'out'
  assert command('reproduce', 'soc-approximation-error', '--out', out).code == 0
  reproduced.keep('soc-approximation-error', 'quick', out, 12.34, 5.67)
  return tmp_path / 'kept' / 'soc-approximation-error-quick.json', out


def test_what_is_kept(kept):
  path, out = kept
  result = json.loads(path.read_text())
  assert (result['seconds'], result['cpu_seconds']) == (12.3, 5.7)
  assert result['command'] == 'certjax reproduce soc-approximation-error --scale quick --seed 0'
  assert result['table'] == (out / 'table.md').read_text()
  cards = [json.loads(each.read_text()) for each in sorted((out / 'cards').iterdir())]
  assert result['cards'] == cards and len(cards) == 5
  assert path.with_suffix('.png').read_bytes() == (out / 'figure.png').read_bytes()
  assert reproduce.read_cards([path]) == {
    reproduce.Asked('soc-approximation-error', 'quick', 0): cards
  }


def test_the_page_and_its_check(reproduced, kept, capsys):
  path, out = kept
  assert reproduced.main(['write']) == 1  # All other recipes have no result here.
  page = reproduced.PAGE.read_text()
  for line in (out / 'table.md').read_text().splitlines():
    assert line in page
  assert '![soc-approximation-error at the scale quick](soc-approximation-error-quick.png)' in page
  missing = [name for name in reproduce.RECIPES if name != 'soc-approximation-error']
  assert reproduced.problems() == [f'{name} has no result of its quick scale' for name in missing]
  capsys.readouterr()

  result = json.loads(path.read_text())
  card = next(card for card in result['cards'] if card['published'])
  card['published']['value'] *= 2
  result['seconds'] = 0
  path.write_text(json.dumps(result))
  found = reproduced.problems()[len(missing) :]
  assert len(found) == 3
  assert found[0] == 'soc-approximation-error-quick: seconds missing or empty'
  assert 'not in published.json' in found[1] and card['number'] in found[1]
  assert found[2] == 'README.md is stale: python benchmarks/reproduced.py write'


def test_a_failing_recipe_does_not_stop_the_others(reproduced, tmp_path, capsys):
  arguments = ['run', 'soc-approximation-error', 'ssn-representation', '--out', str(tmp_path / 'o')]
  (tmp_path / 'o').mkdir()
  (tmp_path / 'o' / 'soc-approximation-error-quick').write_text('in the way')
  assert reproduced.main(arguments) == 1
  assert capsys.readouterr().out.splitlines()[-1] == 'failed: soc-approximation-error'
  assert [path.name for path in (tmp_path / 'kept').glob('*.json')] == [
    'ssn-representation-quick.json'
  ]
