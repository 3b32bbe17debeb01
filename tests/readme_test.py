"""The README and the pages that it leads to tell the truth: commands exist, every method has its row, figures are the cards'."""

import json
import pathlib
import re

import pytest

import certjax
from certjax import configs, train
from certjax.cli import _main

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
CARDS = ROOT / 'benchmarks' / 'results'


def page(name):
  """The text of a page of the site, to which the README must link."""
  assert f'](docs/pages/{name}.md' in README, f'the README does not link to {name}.md'
  return (ROOT / 'docs' / 'pages' / f'{name}.md').read_text()


def test_the_readme_is_short():
  assert len(README.splitlines()) <= 200
  assert max(map(len, README.splitlines())) <= 400


def test_the_two_commands():
  assert 'pip install -e . && certjax quickstart' in README
  assert 'pip install -e ".[test]" && pytest' in README


@pytest.mark.parametrize('name', configs.METHODS)
def test_every_method_has_a_row(name):
  lines = page('methods').splitlines()
  rows = [line for line in lines if line.startswith('| ') and f'(`{name}`)' in line]
  assert len(rows) == 1, f'{name} needs one row in the table of methods'
  cells = re.split(r'(?<!\\)\|', rows[0])[1:-1]
  assert len(cells) == 5
  assert configs.METHODS[name].title in cells[0].replace('\\|', '|')


def test_versions_are_one():
  citation = (ROOT / 'CITATION.cff').read_text().splitlines()
  assert f'version: {certjax.__version__}' in citation
  assert certjax.__version__ in (ROOT / 'CHANGELOG.md').read_text()
  assert f'version {certjax.__version__}. Cite' in README


def test_every_command_and_preset_is_named():
  commands = page('command_line')
  for command in _main._COMMANDS:
    assert f'certjax {command}' in README
    assert f'| `certjax {command}' in commands
  for preset in configs.PRESETS:
    assert f'`{preset}`' in commands


def test_every_attack_stands_beside_its_norms():
  table = page('attacks').split('| `--norm` | `--attacks` |')[1].split('\n\n')[0]
  shown = {name: set() for name in configs.ATTACKS}
  for norms, names in (line.split('|')[1:3] for line in table.splitlines()[2:]):
    general, *of_l2 = names.split('; in L2 also')
    norms = re.findall('`(.+?)`', norms)
    for name in re.findall('`(.+?)`', general):
      shown[name] |= set(norms)
    for name in re.findall('`(.+?)`', ''.join(of_l2)):
      shown[name] |= {'l2'}
  assert shown == {name: set(row.norms) for name, row in configs.ATTACKS.items()}


def test_every_objective_and_rule_is_named():
  methods = page('methods')
  for name in (*configs.POISONING, *train.OBJECTIVES):
    assert f'`{name}`' in methods


def test_figures_of_speed_are_the_cards():
  """Whole tables: tests/cards_test.py."""
  speed = json.loads((CARDS / 'certification.json').read_text())
  for row in speed['rows']:
    ratio = f'{row["ratio"]:.3f} ({row["low"]:.3f} to {row["high"]:.3f})'
    assert f'| {row["model"]} |' in page('speed') and ratio in page('speed')
  (resnet,) = [row for row in speed['rows'] if row['model'] == 'resnet20']
  assert f'takes {resnet["ratio"]:.2f} times its bare forward passes' in README


def test_every_flag_of_an_attack_has_its_paragraph():
  from certjax.evaluate import _distrust

  lines = (ROOT / 'BUILD.md').read_text().splitlines()
  headings = [line[4:] for line in lines if line.startswith('### ')]
  anchors = {heading.lower().replace(':', '').replace(' ', '-') for heading in headings}
  assert set(_distrust._ANCHORS.values()) <= anchors
