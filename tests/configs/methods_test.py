"""No method lacks a column, and what a column names exists."""

import ast
import inspect
import pathlib

import pytest

from certjax import attacks, configs
from certjax.certify import Bounded, Curved, Margin, Masked
from certjax.smoothing import Smoothing, Views

ROOT = pathlib.Path(__file__).parents[2]
EACH = pytest.mark.parametrize('name', configs.METHODS)
BUDGETS = {'l0': 'pixels', 'patch': 'side', 'wasserstein-l2': 'eps'}


@EACH
def test_all_columns_are_filled(name):
  row = configs.METHODS[name]
  assert callable(row.factory)
  for column, value in row._asdict().items():
    if column != 'factory':
      texts = value if isinstance(value, tuple) else (value,)
      assert texts and all(isinstance(text, str) and text.strip() for text in texts), column
  assert row.quantifier in ('probability 1 - alpha per image', 'exact')


@EACH
def test_the_oracle_exists(name):
  file, _, function = configs.METHODS[name].oracle.partition('::')
  path = ROOT / file
  assert path.is_file(), f'{file} does not exist'
  functions = {
    n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)
  }
  assert function.startswith('test_') and function in functions


@EACH
def test_the_audit_attack_exists(name):
  row = configs.METHODS[name]
  assert row.audit in attacks.__all__
  budget = BUDGETS.get(row.norm, 'threat')
  assert budget in inspect.signature(getattr(attacks, row.audit)).parameters, (
    'it attacks another norm'
  )


@EACH
def test_the_preset_exists(name):
  assert configs.METHODS[name].preset in configs.PRESETS


@EACH
def test_the_factory_builds_what_the_row_says(name):
  row = configs.METHODS[name]
  parameters = {'sigma': 0.25} if row.factory.takes('sigma') else {}
  sizes = {'eps': 0.1, 'side': 5, 'pixels': 4}
  radius = {size: value for size, value in sizes.items() if row.factory.takes(size)}
  made = configs.build_smoothing(name, shape=(8, 8, 1), **parameters, **radius)
  assert isinstance(
    made, Smoothing if row.quantifier != 'exact' else (Margin, Bounded, Curved, Masked, Views)
  )
  assert (made.norm, made.unit) == (row.norm, row.unit)
  for sigma in (0, -1, float('nan'), float('inf')) if parameters else ():
    with pytest.raises(ValueError, match='`?sigma`?'):
      configs.build_smoothing(name, shape=(8, 8, 1), sigma=sigma)


def test_unknown_parameter():
  with pytest.raises(ValueError, match='laplace has no parameter lam; it takes scale, sigma, norm'):
    configs.build_smoothing('laplace', lam=0.5)


def test_own_parameter_replaces_sigma():
  a = configs.smoothing_of('uniform', 0.25, {'lam': 2.0}, shape=(2, 2, 1))
  assert float(a.radius(1.0)) == pytest.approx(2.0)
  b = configs.smoothing_of('uniform', 0.25, {}, shape=(2, 2, 1), norm='linf')
  assert b.norm == 'linf'


def test_words_choose_and_numbers_measure():
  made = configs.smoothing_of('wasserstein', 0.02, {'bound': 'levine'}, shape=(8, 8, 1))
  other = configs.smoothing_of(
    'wasserstein', 0.02, {'ground': 'l2'}, shape=(8, 8, 1), norm='wasserstein-l1'
  )
  assert (made.norm, other.norm) == ('wasserstein-l2', 'wasserstein-l1')
  assert float(other.radius(0.9)) > 1.5 * float(made.radius(0.9))
  with pytest.raises(ValueError, match="`keep` of discrete must be a number, got 'much'"):
    configs.build_smoothing('discrete', shape=(8, 8, 1), keep='much')
  with pytest.raises(ValueError, match='`levels` of discrete must be a number'):
    configs.build_smoothing('discrete', shape=(8, 8, 1), levels='all')


def test_unknown_method():
  with pytest.raises(ValueError, match="`method` must be one of gaussian.*; got 'gauss'"):
    configs.build_smoothing('gauss', sigma=1.0)
