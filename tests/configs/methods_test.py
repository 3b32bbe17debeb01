"""No method lacks a column, and what a column names exists."""

import ast
import inspect
import pathlib

import pytest

from certjax import attacks, configs
from certjax.smoothing import Smoothing

ROOT = pathlib.Path(__file__).parents[2]
EACH = pytest.mark.parametrize('name', configs.METHODS)


@EACH
def test_all_columns_are_filled(name):
  row = configs.METHODS[name]
  assert callable(row.factory)
  for column, value in row._asdict().items():
    if column != 'factory':
      assert isinstance(value, str) and value.strip(), column
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
  assert 'threat' in inspect.signature(getattr(attacks, row.audit)).parameters


@EACH
def test_the_preset_exists_and_trains_for_it(name):
  _, preset = configs.PRESETS[configs.METHODS[name].preset]
  assert preset.method == name


@EACH
def test_the_factory_builds_what_the_row_says(name):
  row = configs.METHODS[name]
  made = configs.build_smoothing(name, sigma=0.25)
  assert isinstance(made, Smoothing)
  assert (made.norm, made.unit) == (row.norm, row.unit)
  for sigma in (0, -1, float('nan'), float('inf')):
    with pytest.raises(ValueError, match='`sigma`'):
      configs.build_smoothing(name, sigma=sigma)


def test_unknown_method():
  with pytest.raises(ValueError, match="`method` must be one of gaussian.*; got 'gauss'"):
    configs.build_smoothing('gauss', sigma=1.0)
