"""The documentation tells the truth: every Python example runs and prints what stands below it, links lead somewhere, and
commands and options exist."""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import io
import pathlib
import re

import pytest

from certjax import configs, reproduce
from certjax.cli import _main

pytestmark = pytest.mark.usefixtures('many_programs')

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ROOT / 'docs' / 'pages'
ALL = sorted(PAGES.rglob('*.md'))
README = ROOT / 'README.md'
FENCE = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
WITH_CODE = [page for page in [*ALL, README] if '```python' in page.read_text()]
CONFIGS = {
  'train': configs.Train, 'certify': configs.Certify, 'predict': configs.Predict, 'attack': configs.Attack,
  'sweep': configs.Sweep, 'poison': configs.Poison, 'report': configs.Report,
  'reproduce': configs.Reproduce, 'spectrum': configs.Spectrum, 'version': configs.Version,
}  # fmt: skip
# What may follow a command that begins with a name.
NAMES = {
  'train': {*configs.PRESETS, 'PRESET'}, 'sweep': {*configs.PRESETS, 'PRESET'},
  'reproduce': {*reproduce.RECIPES, 'NAME'}, 'poison': {*configs.POISONING, 'METHOD', 'RULE'},
}  # fmt: skip


def loaded(name):
  """A file of docs/ as a module."""
  spec = importlib.util.spec_from_file_location(name, ROOT / 'docs' / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def written(page):
  """A page as the hooks of the site leave it."""
  file = dataclasses.make_dataclass('File', ['src_uri'])(str(page.relative_to(PAGES)))
  on = dataclasses.make_dataclass('Page', ['file'])(file)
  return loaded('build_pages').on_page_markdown(page.read_text(), page=on)


def blocks(page):
  """(language, code) in order."""
  return FENCE.findall(page.read_text())


@pytest.mark.parametrize('page', WITH_CODE, ids=lambda page: page.stem)
def test_every_example_prints_what_the_page_says(page):
  found, names = blocks(page), {'__name__': page.stem}
  for (language, code), (after, output) in zip(found, [*found[1:], ('', '')], strict=True):
    if language == 'python':
      said = io.StringIO()
      with contextlib.redirect_stdout(said):
        exec(compile(code, str(page), 'exec'), names)
      assert said.getvalue() == (output if after == 'text' else '')


def test_the_readmes_example_is_short():
  (code,) = [code for language, code in blocks(README) if language == 'python']
  assert len(code.splitlines()) <= 30


def test_the_cards_of_all_methods_are_written():
  pages = loaded('build_pages')
  cards = written(PAGES / 'contracts.md')
  for name in (*configs.METHODS, *configs.POISONING):
    card = configs.contract(name)
    part = cards.split(f'{{ #{name} }}')[1].split('\n## ')[0]
    for term, text in configs.contract_rows(card):
      assert f'**{term}**' in part and pages._plain(text) in part


def test_what_lies_beside_the_site_is_named_not_linked():
  named = loaded('build_pages').named
  assert named('[a](b.md#c), [d](../../LICENSE)', 'e.md') == '[a](b.md#c), d (`LICENSE`)'
  assert named('[a](../b.md), [d](../../../x/y.md#z)', 'deep/e.md') == '[a](../b.md), d (`x/y.md`)'
  assert named('[a](https://b.c), [d](#e)', 'e.md') == '[a](https://b.c), [d](#e)'
  for page in ALL:
    assert not re.search(r'\]\((?:\.\./)*[^.)]*(?:benchmarks|colabs|BUILD)', written(page))


def test_a_page_that_loads_from_elsewhere_is_refused():
  pages = loaded('build_pages')

  class Page:
    file = dataclasses.make_dataclass('File', ['src_uri'])('a.md')

  assert pages.on_post_page('<a href="https://arxiv.org">x</a><img src="b.png">', Page) != ''
  for tag in ('<script src="https://a.b/c.js">', '<link rel="x" href="//a.b/c.css">'):
    with pytest.raises(ValueError, match='a.md loads from elsewhere'):
      pages.on_post_page(f'<p>{tag}</p>', Page)


def anchors(page):
  """Those of its headings, as MkDocs makes them."""
  text = written(page) if page.name == 'contracts.md' else page.read_text()
  titles = re.findall(r'^#+ (.*)$', FENCE.sub('', text), re.MULTILINE)
  named = {title.split('{ #')[1][:-2].strip() for title in titles if '{ #' in title}
  plain = (re.sub(r'[^\w\s-]', '', title).strip().lower() for title in titles)
  return named | {re.sub(r'[-\s]+', '-', title) for title in plain}


@pytest.mark.parametrize('page', [*ALL, README], ids=lambda page: f'{page.parent.name}-{page.stem}')
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)]+)\)', FENCE.sub('', page.read_text())):
    path, _, anchor = target.partition('#')
    to = (page.parent / path).resolve() if path else page
    assert to.is_file(), target
    assert not anchor or anchor in anchors(to), target


def test_the_navigation_holds_every_page():
  named = re.findall(r'^ +- [^:]+: (\S+\.md)$', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE)
  assert sorted(named) == sorted(str(page.relative_to(PAGES)) for page in ALL)


def test_commands_presets_and_options_exist():
  text = '\n'.join(page.read_text() for page in [*ALL, README])
  lines = '\n'.join(
    code for page in [*ALL, README] for language, code in blocks(page) if language == 'bash'
  )
  said = set(re.findall(r'`certjax ([\w-]+)', text) + re.findall(r'\bcertjax ([\w-]+)', lines))
  assert said <= {*_main._COMMANDS, 'COMMAND', '--version'}
  for command, rest in re.findall(r'certjax (\w+)((?: [^\n`|]*)?)', text):
    rest = rest.split('#')[0].strip()
    if command in NAMES and rest and not rest.startswith('--'):
      assert rest.split()[0] in NAMES[command], (command, rest)
    if command in CONFIGS:
      fields = {field.name for field in dataclasses.fields(CONFIGS[command])}
      options = re.findall(r'--([a-z-]+)', rest)
      assert {option.replace('-', '_') for option in options} <= fields | {'help'}, rest


def test_our_side_of_other_libraries_names_can_be_called():
  lines = (PAGES / 'guides' / 'coming_from.md').read_text().splitlines()
  codes = [
    code
    for line in lines
    if line.startswith('| ')
    for code in re.findall('`(.+?)`', line.split(' | ')[1])
  ]
  bound = [_bind(call) for code in codes for call in _calls(code)]
  assert bound.count('linf') >= 5 and {'sampled', 'enumerated', 'carlini_wagner', 'jsma'} <= set(
    bound
  )


def _calls(code):
  """Calls of certjax's names in a piece of Python; none in what is no Python."""
  try:
    tree = ast.parse(code)
  except SyntaxError:
    return []
  return [
    node
    for node in ast.walk(tree)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
  ]


def _bind(call):
  """The name of a function that takes such arguments; TypeError if it does not."""
  room = importlib.import_module(
    {'functional': 'certjax.attacks.functional'}.get(
      call.func.value.id, f'certjax.{call.func.value.id}'
    )
  )
  names = {keyword.arg: 0 for keyword in call.keywords}
  inspect.signature(getattr(room, call.func.attr)).bind(*call.args, **names)
  return call.func.attr


def test_public_names_of_packages_are_found():
  pages = loaded('build_pages')
  written = {room: pages.members(f'certjax.{room}') for room in ('smoothing', 'certify', 'threats')}
  assert '\n::: certjax.smoothing.gaussian\n' in written['smoothing']
  assert '\n::: certjax.certify._margin.margin\n' in written['certify']
  assert 'Constants: `ABSTAIN`' in written['certify'] and '.ABSTAIN\n' not in written['certify']
  names = [line.split('.')[-1] for line in written['threats'].splitlines() if line]
  assert names == ['Threat', 'linf', 'l2', 'l1', 'l0', 'patch']
