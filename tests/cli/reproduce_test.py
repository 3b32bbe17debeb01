"""`certjax reproduce`: files of a run, the list, and one clear line for what cannot be run."""

import json

import pytest

from certjax import evaluate, reproduce


def test_a_run_leaves_a_table_a_card_for_each_number_and_a_figure(command, tmp_path):
  arguments = ('reproduce', 'soc-approximation-error', '--out', tmp_path, '--seed', 4)
  done = command(*arguments)
  assert done.code == 0
  assert (tmp_path / 'table.md').read_text() in done.out
  assert done.out.endswith(f'everything is in {tmp_path}\n')
  cards = [json.loads(path.read_text()) for path in sorted((tmp_path / 'cards').iterdir())]
  assert len(cards) == 5 and {card['recipe'] for card in cards} == {'soc-approximation-error'}
  assert cards[0]['versions'] == evaluate.program()
  assert cards[0]['command'] == 'certjax reproduce soc-approximation-error --scale quick --seed 4'
  assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')
  before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
  assert command(*arguments).code == 0
  assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_the_list_names_all_recipes(command, data_dir):
  done = command('reproduce', '--list', '--data-dir', data_dir)
  assert done.code == 0 and done.out == reproduce.listing(data_dir) + '\n'


@pytest.mark.parametrize(
  'arguments, parts',
  [
    ((), ('reproduce what?', 'cohen-cifar10', '--list')),
    (('cohen',), ('`name` must be one of cohen-cifar10', "got 'cohen'")),
    (
      ('heuristic-defenses', '--scale', 'full'),
      ('`scale` of heuristic-defenses', "got 'full'", 'not held here'),
    ),
    (('cohen-imagenet', '--logs', 'nowhere'), ('`logs`=nowhere has no certify/imagenet',)),
    (('dpa-mnist', '--scale', 'reduced'), ('needs mnist', 'certjax data prepare mnist')),
    (('naive-partitioning', '--seed', -1), ('`seed` must lie in', 'got -1')),
  ],
)
def test_refused_in_one_line_with_code_2(command, tmp_path, arguments, parts):
  out = tmp_path / 'out'
  outcome = command('reproduce', *arguments, '--out', out, '--data-dir', tmp_path)
  assert outcome.code == 2
  (line,) = outcome.err.splitlines()
  assert line.startswith('certjax: error: ') and all(part in line for part in parts)
  assert not out.exists()


@pytest.fixture
def cards(command, tmp_path):
  assert command('reproduce', 'soc-approximation-error', '--out', tmp_path / 'made').code == 0
  return tmp_path / 'made' / 'cards'


def test_cards_come_out_again(command, cards, tmp_path):
  done = command('verify-cards', cards, '--out', tmp_path / 'again')
  assert done.code == 0 and done.out.endswith('all of 5 numbers came out again\n')
  assert done.out.count('  same ') == 5


def test_a_card_that_says_something_else_is_a_contradiction(command, cards, tmp_path):
  path = sorted(cards.iterdir())[1]
  card = json.loads(path.read_text())
  card['ours']['value'] *= 1.01
  path.write_text(json.dumps({'cards': [card]}))
  done = command('verify-cards', path, '--out', tmp_path / 'again')
  assert done.code == 3 and done.err == 'certjax: 1 of 1 numbers did not come out again.\n'
  assert f'another             {card["ours"]["value"]:.6g} -> ' in done.out


@pytest.mark.parametrize(
  'text, parts',
  [
    ('[', ('is no JSON',)),
    ('{"question": "how fast?", "rows": []}', ('no card', 'benchmarks/cards.py run')),
    ('{"cards": [{"recipe": 3}]}', ('no card of `certjax reproduce`', 'recipe')),
    (
      '{"recipe": "cohen", "scale": "quick", "number": "a", "ours": {}, "command": "x --seed 1"}',
      ('`name` must be one of', "got 'cohen'"),
    ),
    (
      '{"recipe": "landscape", "scale": "quick", "number": "a", "ours": {}, "command": "x --seed -1"}',
      ("seed '-1'",),
    ),
    (
      '{"recipe": "cohen-cifar10", "scale": "quick", "number": "a", "ours": {}, "command": "x --logs DIR"}',
      ('were made with --logs',),
    ),
  ],
)
def test_what_is_no_card_is_refused_in_one_line(command, tmp_path, text, parts):
  (tmp_path / 'card.json').write_text(text)
  done = command('verify-cards', tmp_path / 'card.json', '--out', tmp_path / 'again')
  (line,) = done.err.splitlines()
  assert done.code == 2 and all(part in line for part in parts), line
  assert not (tmp_path / 'again').exists()
