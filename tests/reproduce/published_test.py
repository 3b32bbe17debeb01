"""The file of published numbers: complete, in range, and the authors' own tables to the digit."""

import json
import pathlib
import tomllib
from decimal import Decimal
from fractions import Fraction

import pytest

from certjax import data, reproduce
from certjax.reproduce import _published

TABLES = json.loads(_published.PATH.read_text(), parse_float=str, parse_int=str)
EACH = pytest.mark.parametrize('table', TABLES)


@EACH
def test_every_number_names_its_paper_its_source_and_its_setting(table):
  for name in reproduce.numbers(table):
    number = reproduce.published(table, name)
    for field in (number.paper, number.source, number.table, number.setting, number.unit):
      assert field.strip() == field and len(field) > 3
    assert 'arXiv:' in number.paper
    assert number.dataset in (*data.DATASETS, reproduce.ARITHMETIC)
    if number.unit == 'fraction of images':
      assert 0 <= number.value <= 1


@EACH
def test_no_number_has_more_digits_than_were_printed(table):
  decimals = TABLES[table].get('decimals')
  for text in TABLES[table]['values'].values():
    if decimals is not None:
      assert -Decimal(text).as_tuple().exponent <= int(decimals)


@pytest.mark.parametrize(
  'table, name', [('cohen-cifar10', 'cifar10'), ('cohen-imagenet', 'imagenet')]
)
def test_cohens_tables_are_the_authors_own(shared, table, name):
  """Each cell of the committed table, but for zeros beyond the first of a row."""
  path = shared / 'logs' / 'cohen_logs' / 'analysis' / 'markdown' / f'vary_noise_{name}'
  head, _, *rows = path.read_text().splitlines()
  radii = [float(cell.split('=')[1]) for cell in head.split('|') if '=' in cell]
  theirs = {}
  for row in rows:
    first, *cells = [cell.strip() for cell in row.split('|') if cell.strip()]
    for radius, cell in zip(radii, cells, strict=True):
      value = float(cell.split('<')[0])
      theirs[f'sigma {first.split()[-2]}, r = {radius}'] = value
      if value == 0:
        break
  assert theirs == {one: reproduce.published(table, one).value for one in reproduce.numbers(table)}


def test_the_share_of_views_is_that_of_the_lemma():
  number = reproduce.published('splitting-lemma', '20 steps')
  assert number.value == float(Fraction(20, 441))


def test_what_is_not_there_is_named():
  with pytest.raises(ValueError, match="no table 'cohen'.*cohen-cifar10"):
    reproduce.published('cohen', 'x')
  with pytest.raises(ValueError, match="no number 'sigma 2'.*sigma 0.12, r = 0.25"):
    reproduce.published('cohen-cifar10', 'sigma 2')


def test_an_entry_that_lacks_its_source_is_refused():
  entry = json.loads(_published.PATH.read_text())['soc-bound']
  with pytest.raises(ValueError, match='must have'):
    _published._Table('x', {key: value for key, value in entry.items() if key != 'source'})
  with pytest.raises(ValueError, match='`kind` must be one of'):
    _published._Table('x', {**entry, 'kind': 'about'})


def test_the_file_is_installed_with_the_package():
  root = pathlib.Path(__file__).parents[2]
  setup = tomllib.loads((root / 'pyproject.toml').read_text())['tool']['setuptools']
  assert setup['package-data']['certjax.reproduce'] == [_published.PATH.name]
