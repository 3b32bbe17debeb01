"""Arguments into a frozen config; what no type can say about them is checked here too."""

import dataclasses
import typing

import tyro

_SEEDS = 2**32  # JAX keeps 32 bits of a seed: beyond them two seeds would draw the same noise.


def parse(config, command, arguments, *, positional=None):
  """The dataclass `config` filled from the arguments of `certjax COMMAND`.

  Args:
    config: a config dataclass.
    command: its name.
    arguments: list of strings.
    positional: a field that is given without its name, or not at all.

  Raises:
    SystemExit: with code 2 and an explanation, as tyro does; with 0 after `--help`.
  """
  config = config if positional is None else _with_positional(config, positional)
  return tyro.cli(
    tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(config),
    prog=f'certjax {command}',
    args=arguments,
  )


def _with_positional(config, name):
  """A subclass whose field tyro takes as positional: configs themselves know nothing of tyro."""
  hint = typing.get_type_hints(config)[name]
  marked = typing.Annotated[hint, tyro.conf.Positional, tyro.conf.arg(metavar=f'[{name.upper()}]')]
  body = {
    '__annotations__': {name: marked}, name: None, '__doc__': config.__doc__,
    '__module__': config.__module__,
  }  # fmt: skip
  return dataclasses.dataclass(frozen=True, kw_only=True)(type(config.__name__, (config,), body))


def parse_preset(presets, command, arguments, *, description):
  """A preset by its name, with overrides.

  Raises:
    ValueError: if the arguments do not begin with the name of a preset.
    SystemExit: as `parse`.
  """
  if not arguments or arguments[0] not in (*presets, '-h', '--help'):
    got = repr(arguments[0]) if arguments else 'nothing'
    raise ValueError(
      f'`certjax {command}` begins with a preset, one of {", ".join(presets)}; got {got}. '
      f'`certjax {command} --help` describes them.'
    )
  return tyro.extras.overridable_config_cli(
    presets, prog=f'certjax {command}', args=arguments, description=description
  )


def check_seed(seed):
  """Raises `ValueError` unless `seed` fits into 32 bits."""
  if not 0 <= seed < _SEEDS:
    raise ValueError(f'`seed` must lie in 0 .. {_SEEDS - 1}, got {seed}.')
