"""Names that load lazily: what a type checker reads is what a program gets."""

import ast
import importlib
import pathlib

import pytest

import certjax


@pytest.mark.parametrize('name', ['certjax', 'certjax.certify'])
def test_checkers_see_the_names_that_load(name):
  """The imports below TYPE_CHECKING, `__all__` and what `__getattr__` finds are one list."""
  package = importlib.import_module(name)
  body = ast.parse(pathlib.Path(package.__file__).read_text()).body
  (block,) = [node for node in body if isinstance(node, ast.If)]
  assert block.test.id == 'TYPE_CHECKING'
  seen = {alias.name: line.module for line in block.body for alias in line.names}
  assert sorted(seen) == sorted(package.__all__) == dir(package)
  for member, module in seen.items():
    found = getattr(package, member)
    if module == name:  # A room.
      assert found is importlib.import_module(f'{name}.{member}')
    else:
      assert found is getattr(importlib.import_module(module), member)
  with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
    _ = package.nothing


def test_the_package_says_that_it_is_typed():
  assert (pathlib.Path(certjax.__file__).parent / 'py.typed').is_file()
