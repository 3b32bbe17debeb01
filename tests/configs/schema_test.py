"""Every option of every command is explained, with its unit."""

import ast
import dataclasses
import inspect
import pathlib

import pytest

from certjax import configs
from certjax.cli import _data

SCHEMAS = [
  configs.Attack, configs.Certify, configs.Doctor, configs.Poison, configs.Predict, configs.Quickstart, configs.Report,
  configs.Reproduce,
  configs.Spectrum, configs.Evaluation, configs.StudyAnalyse, configs.StudyBuild, configs.StudyServe,
  configs.Sweep, configs.Train, configs.VerifyCards, configs.Version, _data.Data,
]  # fmt: skip
EACH = pytest.mark.parametrize('schema', SCHEMAS)


def texts(schema):
  """Field -> the string below it, which `--help` prints; those of its bases first."""
  found = {}
  for base in schema.__bases__:
    found |= texts(base) if dataclasses.is_dataclass(base) else {}
  body = ast.parse(inspect.getsource(schema)).body[0].body
  for field, text in zip(body, body[1:], strict=False):
    is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    if isinstance(field, ast.AnnAssign):
      found[field.target.id] = text.value.value if is_text else ''
  if isinstance(body[-1], ast.AnnAssign):
    found[body[-1].target.id] = ''
  return found


def test_all_schemas_are_seen():
  public = [getattr(configs, name) for name in configs.__all__]
  assert {value for value in public if dataclasses.is_dataclass(value)} <= set(SCHEMAS)


@EACH
def test_every_field_is_documented(schema):
  found = texts(schema)
  assert set(found) == {field.name for field in dataclasses.fields(schema)}
  for name, text in found.items():
    assert text.strip().endswith(('.', ')', ').')), f'{schema.__name__}.{name}: {text!r}'
  assert schema.__doc__ and not schema.__doc__.startswith(f'{schema.__name__}(')


@EACH
def test_noise_and_radii_name_their_unit(schema):
  found = texts(schema)
  if 'sigma' in found:
    assert 'in pixel values of [0, 1]' in found['sigma']
  if 'radii' in found:
    assert 'unit' in found['radii']


@EACH
def test_configs_are_frozen(schema):
  required = {
    field.name: pathlib.Path('run')
    for field in dataclasses.fields(schema)
    if field.default is dataclasses.MISSING
  }
  config = schema(**required)
  name = dataclasses.fields(schema)[0].name
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(config, name, None)
