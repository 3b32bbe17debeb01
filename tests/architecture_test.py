"""The house rules, read off the source: who imports whom, sizes, fences, no JAX where none is needed.

Levels are DESIGN section 2's; BUILD.md explains them.
"""

import ast
import collections
import functools
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


@functools.cache
def tree(path):
  return ast.parse(path.read_text())


@functools.cache
def by_kind():
  found = collections.defaultdict(list)
  for path in FILES:
    for node in ast.walk(tree(path)):
      place = f'{path.relative_to(ROOT)}:{getattr(node, "lineno", 0)}'
      found[type(node)].append((room(module_name(path)), place, node))
  return found


def nodes(kind):
  """(room, place, node) of all nodes of a kind, wherever they stand."""
  return by_kind()[kind]


def dotted(node):
  """'jax.lax.pmean' of such an expression, the end of it where it begins otherwise."""
  if isinstance(node, ast.Attribute):
    return f'{dotted(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def calls(*ends):
  """(room, place, node) of the calls of a function by one of these names, or the ends of such."""
  ends = tuple(f'.{end}' for end in ends)
  return [found for found in nodes(ast.Call) if f'.{dotted(found[-1].func)}'.endswith(ends)]


def imports(path):
  """(module, line) of every import in a file, wherever it stands."""
  for node in ast.walk(tree(path)):
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
  for _, place, node in nodes(ast.Attribute):
    name = dotted(node)
    bad = name != 'jax.core.Tracer' and name.startswith(forbidden)
    assert not bad, f'{place} reads {name}'


def import_without(packages, statement):
  """Runs an import in a process where these packages cannot be imported."""
  script = (
    'import sys\n'
    'class Refuse:\n'
    '  def find_spec(self, name, *rest):\n'
    f"    if name.split('.')[0] in {packages}: raise ImportError(f'no {{name}} here')\n"
    'sys.meta_path.insert(0, Refuse())\n'
    f'{statement}\n'
  )
  subprocess.run([sys.executable, '-c', script], check=True)


@pytest.mark.parametrize('name', NO_JAX)
def test_rooms_without_jax_import_without_jax(name):
  import_without(('jax', 'jaxlib'), f'import certjax.{name}')


def test_commands_import_what_they_need_inside():
  """All of the command line, its help included, loads where nothing heavy is installed."""
  heavy = (
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'orbax',
    'tensorflow_datasets',
    'matplotlib',
    'sklearn',
    'rich',
  )
  modules = [f'certjax.{module_name(path)}' for path in FILES if path.parent.name == 'cli']
  import_without(heavy, f'import {", ".join(modules)}')


def test_sizes_and_names():
  for path in FILES:
    lines = path.read_text().count('\n')
    assert lines <= 400, f'{path.relative_to(ROOT)} has {lines} lines'
    assert path.stem not in ('utils', 'helpers', 'misc', 'common', 'core')
    inside = path.parent != PACKAGE and path.stem not in ('__init__', '__main__')
    assert not inside or path.stem.startswith('_'), f'{path}: files of a package start with _'


def public(path):
  """Public functions and classes of a file, methods left out."""
  for node in tree(path).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
      yield node


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_public_names_are_documented(path):
  assert ast.get_docstring(tree(path)), f'{path}: a module says what it proves'
  for node in public(path):
    assert ast.get_docstring(node), f'{path.relative_to(ROOT)}:{node.lineno} {node.name}'


def test_no_eval_no_bare_except_no_global_no_assert():
  assert not [place for _, place, node in calls('eval', 'exec') if isinstance(node.func, ast.Name)]
  assert not [place for _, place, node in nodes(ast.ExceptHandler) if node.type is None]
  assert not [place for _, place, _ in nodes(ast.Global)], 'state that functions share'
  assert not [place for where, place, _ in nodes(ast.Assert) if where != 'testing'], (
    'a ValueError says more'
  )


def test_seeds_are_arguments():
  """No global generator, none without a seed, none seeded by the clock, no raw keys."""
  made = ('default_rng', 'RandomState', 'Philox', 'Generator')
  for _, place, node in nodes(ast.Attribute):
    of_numpy = dotted(node.value) in ('np.random', 'numpy.random')
    assert not of_numpy or node.attr in made, f'{place}: the global generator of numpy'
    assert node.attr != 'PRNGKey', f'{place}: keys are typed, `jax.random.key`'
  for path in FILES:
    assert 'random' not in [name for name, _ in imports(path)], f'{path}: a global generator'
  for _, place, node in calls('default_rng', 'RandomState', 'Philox', 'random.key'):
    words = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    assert (node.args or node.keywords) and not words & {
      'time',
      'datetime',
      'os',
      'secrets',
      'uuid',
    }, place


def test_only_commands_print():
  for where, place, _ in calls('print', 'sys.stdout.write', 'sys.stderr.write'):
    assert where == 'cli', f'{place}: progress and results go to callbacks'


def test_one_named_axis():
  """Collectives speak of `parallel.AXIS`; meshes, maps and the float64 context are made in one place."""
  for _, place, node in calls('pmean', 'psum', 'pmax', 'pmin', 'all_gather', 'axis_index'):
    assert dotted(node.args[-1]) == 'parallel.AXIS', place
  for where, place, _ in calls('jax.pmap', 'shard_map', 'make_mesh', 'Mesh', 'enable_x64'):
    assert where == 'parallel', f'{place}: use certjax.parallel'
  keywords = lambda node: {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
  assert [keywords(node)['check_vma'] for *_, node in calls('shard_map')] == ['False']
  assert ['axis_types' in keywords(node) for *_, node in calls('Mesh')] == [True]


def test_convolutions_have_the_gradient_that_is_fast_in_loops():
  """DESIGN, rule 4: XLA's own is a naive loop inside a loop on CPUs."""
  for where, place, _ in calls(
    'lax.conv_general_dilated', 'lax.conv', 'lax.conv_with_general_padding'
  ):
    differentiated = where != 'reproduce'  # There it unrolls an operator, as an oracle.
    assert where == 'layers' or not differentiated, f'{place}: use layers.conv_general_dilated'
  for _, place, node in calls('nn.Conv'):
    names = [keyword.arg for keyword in node.keywords]
    assert 'conv_general_dilated' in names, f'{place}: pass layers.conv_general_dilated'
