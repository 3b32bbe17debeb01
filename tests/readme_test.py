"""The README tells the truth: commands exist, every method has its row, figures are the cards'."""

import json
import pathlib

import pytest

import certjax
from certjax import configs
from certjax.cli import _main

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
CARDS = ROOT / 'benchmarks' / 'results'


def test_the_two_commands():
  assert 'pip install -e . && certjax quickstart' in README
  assert 'pip install -e ".[test]" && pytest' in README


@pytest.mark.parametrize('name', configs.METHODS)
def test_every_method_has_a_row(name):
  rows = [line for line in README.splitlines() if line.startswith('| ') and f'(`{name}`)' in line]
  assert len(rows) == 1, f'{name} needs one row in the table of methods'
  assert configs.METHODS[name].title in rows[0]


def test_versions_are_one():
  citation = (ROOT / 'CITATION.cff').read_text().splitlines()
  assert f'version: {certjax.__version__}' in citation
  assert certjax.__version__ in (ROOT / 'CHANGELOG.md').read_text()
  assert f'version {certjax.__version__}. Cite' in README


def test_every_command_and_preset_is_named():
  for command in _main._COMMANDS:
    assert f'certjax {command}' in README
  for preset in configs.PRESETS:
    assert f'`{preset}`' in README


def test_figures_of_speed_are_the_cards():
  """Whole tables: tests/cards_test.py."""
  speed = json.loads((CARDS / 'certification.json').read_text())
  for row in speed['rows']:
    ratio = f'{row["ratio"]:.3f} ({row["low"]:.3f} to {row["high"]:.3f})'
    assert f'| {row["model"]} |' in README and ratio in README


def test_every_flag_of_an_attack_has_its_paragraph():
  from certjax.evaluate import _distrust

  lines = (ROOT / 'BUILD.md').read_text().splitlines()
  headings = [line[4:] for line in lines if line.startswith('### ')]
  anchors = {heading.lower().replace(':', '').replace(' ', '-') for heading in headings}
  assert set(_distrust._ANCHORS.values()) <= anchors
