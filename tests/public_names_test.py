"""Every public name says what it takes, gives and refuses, and shows an example: read off its docstring.

Public is what a room lists in `__all__`, and what the rooms of one file define without an underscore. Only
modules are imported: no program of JAX runs here. The examples themselves run as doctests.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import re

PACKAGE = pathlib.Path(__file__).parent.parent / 'certjax'
ROOMS = sorted(
  path.stem
  for path in PACKAGE.iterdir()
  if not path.name.startswith('_') and path.name not in ('cli', 'py.typed')
)

WITHOUT_EXAMPLE = {
  'train.run': 'a training run; README.md and tests/train/resume_test.py show it',
  'evaluate.train_members': 'trains an ensemble; the example of poison_records does it too',
  'evaluate.pointwise_of_votes': 'compiles for seconds; tests/reproduce/trained_recipes_test.py shows it',
}
"""Functions too slow for a doctest, and where they are shown instead."""


@functools.cache
def public(room):
  """name -> what it is, of one room."""
  module = importlib.import_module(f'certjax.{room}')
  home = module.__name__
  named = getattr(module, '__all__', None) or [
    name for name, what in vars(module).items()
    if not name.startswith('_') and getattr(what, '__module__', None) == home
  ]  # fmt: skip
  found = {name: inspect.unwrap(getattr(module, name)) for name in named}
  return {n: what for n, what in found.items() if inspect.isfunction(what) or inspect.isclass(what)}


def is_noun(what):
  """A class that only holds values: a named tuple, a protocol, or a dataclass that is no function."""
  called = any('__call__' in vars(base) for base in what.__mro__)
  named_tuple = issubclass(what, tuple) and hasattr(what, '_fields')
  dataclass = hasattr(what, '__dataclass_fields__') and not called
  return named_tuple or dataclass or getattr(what, '_is_protocol', False)


def functions():
  for room in ROOMS:
    for name, what in public(room).items():
      if inspect.isfunction(what):
        yield f'{room}.{name}', what


def classes():
  for room in ROOMS:
    for name, what in public(room).items():
      if inspect.isclass(what):
        yield f'{room}.{name}', what


def doc(what):
  return inspect.getdoc(what) or ''


@functools.cache
def definitions(file):
  """name -> the tree of each function that stands at the left margin of a file."""
  body = ast.parse(pathlib.Path(file).read_text()).body
  return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def tree(function):
  return definitions(inspect.getsourcefile(function))[function.__name__]


def parameters(function):
  return [name for name in inspect.signature(function).parameters if name != 'self']


def says(text, name):
  return re.search(rf'(?<!\w){re.escape(name)}(?!\w)', text)


def section(text, *heads):
  """The lines of a section, '' where there is none."""
  found = re.search(rf'^(?:{"|".join(heads)}):\n((?:  .*\n|\n)*)', f'{text}\n', re.MULTILINE)
  return found.group(1) if found else ''


def own(node):
  """The nodes of a function that are not those of a function inside it."""
  for child in ast.iter_child_nodes(node):
    if not isinstance(child, ast.FunctionDef | ast.Lambda):
      yield child
      yield from own(child)


def gives(function):
  """Whether something comes back."""
  kinds = ast.Return | ast.Yield | ast.YieldFrom
  return any(isinstance(node, kinds) and node.value for node in own(tree(function)))


def raises(function):
  """Whether its body, that of the functions inside it included, makes an error."""
  found = (node.exc for node in ast.walk(tree(function)) if isinstance(node, ast.Raise))
  named = (error.func.id for error in found if isinstance(error, ast.Call))
  return any(name != 'AssertionError' for name in named)  # What cannot happen needs no word.


def complain(missing, rule):
  assert not missing, f'{rule}: {", ".join(missing)}'


def test_an_example():
  """Functions run in one. Classes too, unless they only hold values: then each field is explained."""
  missing = [name for name, what in functions() if '>>>' not in doc(what)]
  complain([n for n in missing if n not in WITHOUT_EXAMPLE], 'without an example (`>>>`)')
  assert sorted(WITHOUT_EXAMPLE) == sorted(missing), 'an exception that is none'
  calls = [name for name, what in classes() if not is_noun(what) and '>>>' not in doc(what)]
  complain(calls, 'classes without an example (`>>>`)')


def test_every_parameter_and_field():
  missing = []
  for name, what in functions():
    missing += [f'{name}({p})' for p in parameters(what) if not says(doc(what), p)]
  for name, what in classes():
    missing += [f'{name}.{f}' for f in getattr(what, '_fields', ()) if not says(doc(what), f)]
  complain(missing, 'not in the docstring')


def test_what_comes_back():
  missing = [
    name
    for name, what in functions()
    if gives(what) and tree(what).returns is None and not section(doc(what), 'Returns', 'Yields')
  ]
  complain(missing, 'neither a return annotation nor `Returns:` or `Yields:`')


def test_the_key_comes_first():
  """In `study`, which draws nothing, a key is the truth about the pairs."""
  missing = [
    name
    for name, what in functions()
    if not name.startswith('study.')
    and {'key', 'keys'} & {arg.arg for arg in tree(what).args.args[1:]}
  ]
  complain(missing, 'the key is not the first parameter')


ARRAYS = ('x', 'y', 'x_adv', 'delta', 'logits', 'labels', 'votes', 'counts', 'index', 'radii')
"""Nouns of STYLE that are arrays wherever they stand."""
SHAPE = r'\[|int\b|scalar|as '
"""A shape, one number, or where it says so."""


def entries(text):
  """(names, meaning) of each entry of an `Args` section."""
  return re.findall(r'^  (\S[^:\n]*): (.*(?:\n    .*)*)', text, re.MULTILINE)


def test_shapes():
  missing = []
  for name, what in functions():
    said = {
      one.strip(' `*'): meaning
      for names, meaning in entries(section(doc(what), 'Args'))
      for one in names.split(',')
    }
    arrays = [parameter for parameter in parameters(what) if parameter in ARRAYS]
    missing += [f'{name}({p})' for p in arrays if not re.search(SHAPE, said.get(p, ''))]
  complain(missing, 'arrays without a shape')


def test_errors():
  missing = [
    name for name, what in functions() if raises(what) and not section(doc(what), 'Raises')
  ]
  complain(missing, 'raises, without `Raises:`')
