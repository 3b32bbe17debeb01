"""The house rules, read off the source: who imports whom, sizes, fences, no JAX where none is needed.

Levels are DESIGN section 2's; BUILD.md explains them.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'certjax'
FILES = sorted(PACKAGE.rglob('*.py'))

LEVELS = {
  'typing': 0, 'tracing': 0,
  'threats': 1, 'smoothing': 1, 'distances': 1, 'layers': 1, 'data': 1, 'records': 1, 'report': 1,
  'study': 1, 'parallel': 1,
  'certify._certificate': 1, 'certify._confidence': 1, 'certify._margin': 1,
  'certify._aggregation': 1, 'certify._finite_aggregation': 1, 'certify._run_off': 1, 'certify._curvature': 1, 'certify._best': 1,
  'certify._patch_votes': 1, 'certify._masking': 1, 'certify._double_masking': 1, 'certify._boundaries': 1, 'certify._boundary_dp': 1, 'certify._confidence_sequence': 1,
  'certify': 2, 'bounds': 2, 'attacks': 2, 'defenses': 2,
  'models': 3, 'train': 3, 'poisoning': 3.5,
  'evaluate': 4, 'testing': 4,
  'reproduce': 5,
  'configs': 6, 'cli': 7, '__main__': 8,
}  # fmt: skip

FENCES = {  # Top-level package -> rooms that may import it; None: nobody.
  'flax': {'layers', 'models', 'train', 'poisoning'},
  'tensorflow_datasets': {'data'},
  'array_record': {'data'},
  'sklearn': {'data'},
  'etils': {'records'},
  'tensorflow': set(),
  'orbax': {'train'},
  'matplotlib': {'report', 'study'},
  'tyro': {'cli'},
  'rich': {'cli'},
  'torch': set(),
}
NO_JAX = ('records', 'report', 'study')
LAZY_NAMES = {  # Names of `certjax.certify` that live at level 1.
  'Certificate': 'certify._certificate',
  'certificate': 'certify._certificate',
  'ABSTAIN': 'certify._certificate',
  'clopper_pearson': 'certify._confidence',
  'clopper_pearson_upper': 'certify._confidence',
  'aggregate': 'certify._aggregation',
  'aggregate_counts': 'certify._aggregation',
  'finite_aggregation': 'certify._finite_aggregation',
  'run_off_budget': 'certify._run_off',
  'run_off_election': 'certify._run_off',
  'patch_from_counts': 'certify._patch_votes',
  'patch_from_votes': 'certify._patch_votes',
  'windows_met': 'certify._patch_votes',
  'patch_from_places': 'certify._patch_votes',
  'windows_at_places': 'certify._patch_votes',
  'cells_met': 'certify._masking',
  'patch_from_clipping': 'certify._masking',
  'patch_from_masking': 'certify._masking',
  'double_masking_from_votes': 'certify._double_masking',
  'randomized_clopper_pearson': 'certify._confidence',
  'boundary': 'certify._boundaries',
  'boundary_error': 'certify._boundary_dp',
  'confidence_sequence': 'certify._confidence_sequence',
  'tolerance_met': 'certify._confidence_sequence',
}


def module_name(path):
  parts = path.relative_to(PACKAGE).with_suffix('').parts
  return '.'.join(part for part in parts if part != '__init__')


def room(module):
  return module.split('.')[0]


def level(module):
  """The level of the longest known prefix."""
  while module not in LEVELS:
    if '.' not in module:
      raise AssertionError(f'{module} is no room of DESIGN section 2: give it a level')
    module = module.rsplit('.', 1)[0]
  return LEVELS[module]


def imports(path):
  """(module, line) of every import in a file, wherever it stands."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno}: imports are absolute'
      for alias in node.names:
        assert alias.name != '*', f'{path}:{node.lineno}: star import'
        yield f'{node.module}.{alias.name}', node.lineno


def internal(path):
  """(room.submodule or name, line) of every import of certjax itself."""
  for name, line in imports(path):
    if name.startswith('certjax.'):
      target = name.removeprefix('certjax.')
      if target.startswith('certify.') and target.split('.')[1] in LAZY_NAMES:
        target = LAZY_NAMES[target.split('.')[1]]
      if not target.startswith('__version__'):
        yield target, line


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
  module = module_name(path)
  if not module:
    return
  for target, line in internal(path):
    if room(target) == room(module):
      continue
    assert level(target) <= level(module), (
      f'{path.relative_to(ROOT)}:{line}: {module} (level {level(module)}) imports {target} '
      f'(level {level(target)})'
    )


def test_no_cycles_between_rooms_of_one_level():
  graph = {}
  for path in FILES:
    module = module_name(path)
    if module:
      key = module if module in LEVELS else room(module)
      targets = (t if t in LEVELS else '.'.join(t.split('.')[:2]) for t, _ in internal(path))
      graph.setdefault(key, set()).update(
        (t if t in LEVELS else room(t)) for t in targets if room(t) != room(module)
      )
  seen, path = set(), []

  def visit(node):
    assert node not in path, f'import cycle {" -> ".join([*path[path.index(node) :], node])}'
    if node not in seen:
      path.append(node)
      for child in graph.get(node, ()):
        visit(child)
      seen.add(path.pop())

  for node in list(graph):
    visit(node)


@pytest.mark.parametrize('package', FENCES)
def test_fences(package):
  for path in FILES:
    for name, line in imports(path):
      if name.split('.')[0] == package:
        where = room(module_name(path))
        assert where in FENCES[package], f'{path.relative_to(ROOT)}:{line} imports {package}'


def test_nothing_private_of_jax():
  forbidden = ('jax.interpreters', 'jax._src', 'jax.experimental.shard_map', 'jax.core.')
  for path in FILES:
    for name, line in imports(path):
      bad = any(f'{name}.'.startswith(prefix) for prefix in forbidden)
      assert not bad, f'{path.relative_to(ROOT)}:{line} imports {name}'


@pytest.mark.parametrize('name', NO_JAX)
def test_rooms_without_jax_import_without_jax(name):
  if not (PACKAGE / name).exists() and not (PACKAGE / f'{name}.py').exists():
    pytest.skip(f'{name} is not built yet')
  script = (
    'import sys\n'
    'class Refuse:\n'
    '  def find_spec(self, name, *rest):\n'
    "    if name.split('.')[0] in ('jax', 'jaxlib'): raise ImportError('no jax here')\n"
    'sys.meta_path.insert(0, Refuse())\n'
    f'import certjax.{name}\n'
  )
  subprocess.run([sys.executable, '-c', script], check=True)


def test_sizes_and_names():
  for path in FILES:
    lines = path.read_text().count('\n')
    assert lines <= 400, f'{path.relative_to(ROOT)} has {lines} lines'
    assert path.stem not in ('utils', 'helpers', 'misc', 'common', 'core')
    inside = path.parent != PACKAGE and path.stem not in ('__init__', '__main__')
    assert not inside or path.stem.startswith('_'), f'{path}: files of a package start with _'


def public(path):
  """Public functions and classes of a file, methods left out."""
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
      yield node


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_public_names_are_documented(path):
  assert ast.get_docstring(ast.parse(path.read_text())), f'{path}: a module says what it proves'
  for node in public(path):
    assert ast.get_docstring(node), f'{path.relative_to(ROOT)}:{node.lineno} {node.name}'


def test_no_eval_no_bare_except_no_clock_seeds():
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      where = f'{path.relative_to(ROOT)}:{getattr(node, "lineno", 0)}'
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        assert node.func.id not in ('eval', 'exec'), where
      assert not (isinstance(node, ast.ExceptHandler) and node.type is None), where
