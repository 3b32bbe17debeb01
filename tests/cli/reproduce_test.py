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
    (('cohen-imagenet', '--scale', 'full'), ('`scale` of cohen-imagenet', "got 'full'")),
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
