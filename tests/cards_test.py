"""The cards of the benchmarks, the tables of the README and of the site, and that drift between them is seen."""

import importlib.util
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TABLE = '| run | clean |\n| --- | --- |\n| a | 0.5 |'
CARD = {
  'question': 'How clean?', 'command': 'python benchmarks/one.py --data-dir DIR --size 3',
  'date': '2026-11-28', 'hardware': {'cpu': 'one'}, 'versions': {'numpy': '2'}, 'table': TABLE,
  'rows': [{'run': 'a', 'clean': 0.5, 'at': {'0.1': 0.25}, 'flag': 'none'}],
}  # fmt: skip
SCRIPT = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument('--data-dir', required=True)
parser.add_argument('--size', type=int)
arguments = parser.parse_args()
assert pathlib.Path(arguments.data_dir).is_dir() and arguments.size == 3
card = json.loads(pathlib.Path('benchmarks/results/one.json').read_text())
card['rows'][0] |= {'clean': 0.75, 'flag': 'square'}
(pathlib.Path(os.environ['CERTJAX_BENCHMARK_RESULTS']) / 'one.json').write_text(json.dumps(card))
"""


@pytest.fixture(scope='module')
def cards():
  """benchmarks/cards.py: scripts beside the package, not a part of it."""
  sys.path.insert(0, str(ROOT / 'benchmarks'))
  try:
    spec = importlib.util.spec_from_file_location('cards', ROOT / 'benchmarks' / 'cards.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
  finally:
    sys.path.remove(str(ROOT / 'benchmarks'))


@pytest.fixture
def root(tmp_path):
  """A repository with one card, its script, a README that shows a figure of it, and a page with its table."""
  (tmp_path / 'benchmarks' / 'results').mkdir(parents=True)
  (tmp_path / 'benchmarks' / 'one.py').write_text(SCRIPT)
  (tmp_path / 'benchmarks' / 'results' / 'one.json').write_text(json.dumps(CARD))
  (tmp_path / 'docs' / 'pages' / 'deep').mkdir(parents=True)
  text = f'Before.\n\n<!-- card: one -->\n\n{TABLE}\n\n<!-- end -->\n\n| other | table |\n'
  (tmp_path / 'docs' / 'pages' / 'deep' / 'page.md').write_text(text)
  (tmp_path / 'README.md').write_text('Half: <!-- card: one; a; clean -->0.5<!-- end -->.\n')
  return tmp_path


def test_our_cards_are_whole_and_our_pages_show_them(cards):
  assert cards.check() == []
  assert ROOT / 'docs' / 'pages' / 'results.md' in cards.pages(ROOT)


@pytest.mark.parametrize(
  ('old', 'new', 'said'),
  [
    ('| a | 0.5 |', '| a | 0.6 |', 'one differs from its card'),
    ('<!-- end -->', '', 'has no partner'),
    ('<!-- card: one -->\n\n', '', 'has no partner'),
    ('card: one', 'card: two', 'two is marked, and no card'),
    ('card: one', 'card: two', 'one has a table that no page shows'),
  ],
)
def test_drift_of_a_table_is_named(cards, root, old, new, said):
  assert cards.check(root) == []
  file = root / 'docs' / 'pages' / 'deep' / 'page.md'
  file.write_text(file.read_text().replace(old, new))
  assert said in '\n'.join(cards.check(root))


@pytest.mark.parametrize(
  ('old', 'new', 'said'),
  [
    ('0.5', '0.6', 'README.md: one; a; clean is 0.5 in its card'),
    ('card: one', 'card: two', 'README.md: two is marked, and no card'),
    ('a; clean', 'b; clean', 'one has no one figure at `b; clean`'),
    ('a; clean', 'a; run; clean', 'one has no one figure'),
    ('a; clean', 'clean', 'one has no one figure'),
    ('a; clean', 'a; dirty', 'one has no one figure'),
    ('<!-- end -->', '', 'has no partner'),
  ],
)
def test_drift_of_a_figure_is_named(cards, root, old, new, said):
  file = root / 'README.md'
  file.write_text(file.read_text().replace(old, new))
  assert said in '\n'.join(cards.check(root))


def test_a_figure_is_of_one_row_alone(cards):
  table = '| run | eps | clean |\n| --- | --- | --- |\n| a | 1 | 0.5 |\n| a | 2 | 0.4 |'
  assert cards.figure(table, 'a; 2; clean') == '0.4'
  assert cards.figure(table, 'a; clean') is None


def test_writing_restores_tables_and_figures_and_nothing_else(cards, root):
  for file, old, new in (
    ('docs/pages/deep/page.md', '| a | 0.5 |', '| a | 0.6 |\n| b | 0.7 |'),
    ('README.md', '>0.5<', '>0.6<'),
  ):
    text = (root / file).read_text()
    changed = text.replace(old, new)
    assert changed != text and cards.rewritten(changed, {'one': CARD}) == text
    assert cards.rewritten(changed, {}) == changed


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'hardware': None}, 'hardware is missing or empty'),
    ({'rows': []}, 'rows is missing or empty'),
    ({'date': 'yesterday'}, "date is none: 'yesterday'"),
    ({'command': 'python benchmarks/two.py'}, 'names two.py, which is not there'),
    ({'command': 'python benchmarks/one.py --sise 3'}, 'one.py knows no --sise'),
  ],
)
def test_a_card_that_is_not_whole_is_named(cards, root, change, said):
  assert cards.card_problems(CARD, root) == []
  assert cards.card_problems({**CARD, **change}, root) == [
    said.replace('names', 'its command names')
  ]


def test_a_card_is_made_again_elsewhere(cards, root):
  """The script runs with this machine's place; the card that is committed stays."""
  before = (root / 'benchmarks' / 'results' / 'one.json').read_bytes()
  table = cards.run('one', {'--data-dir': str(root)}, root)
  assert (root / 'benchmarks' / 'results' / 'one.json').read_bytes() == before
  assert table.splitlines()[2:] == [
    '| a | clean | 0.5 | 0.75 |', '| a | at.0.1 | 0.25 | 0.25 |', '| a | flag | none | square |',
  ]  # fmt: skip
  assert cards.help_problems(CARD, root) == []
  asked = {**CARD, 'command': 'python benchmarks/one.py --sise 3'}
  assert cards.help_problems(asked, root) == ['one.py --help names no --sise']


@pytest.mark.parametrize(
  ('name', 'places', 'said'),
  [
    ('two', {}, "no card is called 'two'; there are one"),
    ('one', {}, 'needs --data-dir PATH'),
    ('one', {'--data-dir': '.', '--weights': '.'}, 'needs nothing more, and has no --weights'),
  ],
)
def test_what_cannot_be_run_is_named(cards, root, name, places, said):
  with pytest.raises(ValueError, match=said):
    cards.run(name, places, root)


def test_rows_that_came_or_went_are_shown(cards):
  assert cards.compared([{'a': 1}], [{'a': 1}, {'a': 2}])[-1]['old'] == '-'
  assert cards.compared([{'a': 1}, {'b': 2}], [{'a': 1}])[-1]['new'] == '-'
