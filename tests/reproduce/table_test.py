"""What a table says: agreement by printed digits, bounds and intervals, and never across data sets."""

import json

import pytest

from certjax import reproduce
from certjax.reproduce import ARITHMETIC, Published, Row

THERE = Published('A 2020 (arXiv:1)', 'its code', 'Table 1', 'mnist', 'large', 0.43, 'share', decimals=2)  # fmt: skip
ROW = Row('accuracy', 0.428, 'share', 'ours', 'mnist', THERE, comparable=True)
BOUND = THERE._replace(dataset=ARITHMETIC, kind='at most', value=1.0, decimals=None)


@pytest.mark.parametrize(
  'row, said',
  [
    (ROW, 'agrees'),
    (ROW._replace(ours=0.425), 'agrees'),  # Half a digit, either way of rounding.
    (ROW._replace(ours=0.4249), 'differs'),
    (ROW._replace(ours=float('nan')), 'differs'),
    (ROW._replace(ours=0.40, interval=(0.37, 0.43)), 'agrees'),
    (ROW._replace(ours=0.40, interval=(0.38, 0.42)), 'differs'),
    (ROW._replace(published=THERE._replace(decimals=None)), 'differs'),
    (ROW._replace(ours=None), ''),
    (ROW._replace(comparable=False), 'another setting'),
    (ROW._replace(dataset='digits', comparable=False), 'another setting'),
    (ROW._replace(published=None, comparable=False), ''),
    (ROW._replace(published=BOUND, ours=1.0), 'agrees'),  # A theorem holds on every data set.
    (ROW._replace(published=BOUND, ours=1.001), 'differs'),
    (ROW._replace(published=BOUND._replace(kind='at least'), ours=0.999), 'differs'),
    (ROW._replace(published=BOUND._replace(kind='at least'), ours=1.5), 'agrees'),
  ],
)
def test_verdicts(row, said):
  assert reproduce.verdict(row) == said


@pytest.mark.parametrize(
  'changed',
  [
    {'dataset': 'digits'},
    {'unit': 'samples'},
    {'published': None},
    {'published': THERE._replace(dataset=ARITHMETIC)},
  ],
)
def test_digits_are_never_a_match_for_another_data_set(changed, tmp_path):
  row = ROW._replace(**changed)
  with pytest.raises(
    ValueError, match='a comparable row needs a published number on the same data'
  ):
    reproduce.verdict(row)
  request = reproduce.Request('quick', tmp_path / 'out')
  with pytest.raises(ValueError, match='comparable'):
    reproduce.write(RECIPE, request, reproduce.Result((row,)), {})
  assert not request.out.exists()


RECIPE = reproduce.Recipe('name', 'A 2020', 'mnist', 'shows', {}, None)


def written(tmp_path, rows, **more):
  request = reproduce.Request('quick', tmp_path, seed=7, logs=more.pop('logs', None))
  text = reproduce.write(RECIPE, request, reproduce.Result(tuple(rows), **more), {'jax': '1'})
  return text, sorted(path.name for path in (tmp_path / 'cards').iterdir())


def test_every_number_has_a_row_and_a_card(tmp_path):
  other = ROW._replace(
    number='|J| at 2', dataset='digits', ours=12.0, interval=(10.5, 13.0), seed=3, comparable=False
  )
  text, names = written(tmp_path, [ROW, other], notes=('A note.',))
  assert names == ['000-accuracy.json', '001-j-at-2.json']
  assert (tmp_path / 'table.md').read_text() == text and text.endswith('\n\nA note.\n')
  assert '| accuracy (share) | 0.43 | mnist | 0.428 |  | mnist | ours |  | agrees |' in text
  assert (
    r'| \|J\| at 2 (share) | 0.43 | mnist | 12 | 10.5 to 13 | digits | ours | 3 | another' in text
  )
  assert text.count('Published: A 2020') == 1 and 'Read in: its code.' in text
  first, second = (json.loads((tmp_path / 'cards' / name).read_text()) for name in names)
  assert first['published'] == THERE._asdict() and first['compared'] == 'agrees'
  assert second['ours'] == {
    'value': 12.0, 'interval': [10.5, 13.0], 'setting': 'ours', 'dataset': 'digits', 'seed': 3,
  }  # fmt: skip
  assert second['compared'] == 'another setting' and second['versions'] == {'jax': '1'}
  assert second['command'] == 'certjax reproduce name --scale quick --seed 7'
  assert not (tmp_path / 'figure.png').exists()


def test_places_of_a_machine_are_left_out(tmp_path):
  written(tmp_path, [ROW], logs=tmp_path / 'secret')
  card = (tmp_path / 'cards' / '000-accuracy.json').read_text()
  assert 'secret' not in card and '--logs DIR' in card


def test_cards_of_an_earlier_run_go_and_other_files_stay(tmp_path):
  written(tmp_path, [ROW, ROW])
  (tmp_path / 'cards' / 'mine.json').write_text('{}')
  _, names = written(tmp_path, [ROW])
  assert names == ['000-accuracy.json', 'mine.json']


def test_recipes_are_of_the_list_and_offer_the_quick_scale():
  for name, recipe in reproduce.RECIPES.items():
    assert recipe.name == name and recipe.source and recipe.shows
    assert 'quick' in recipe.scales and set(recipe.scales) <= set(reproduce.SCALES)
