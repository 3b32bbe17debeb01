"""Arguments into a frozen config; what no type can say about them is checked here too."""

import dataclasses
import typing

import tyro

from certjax import configs

_SEEDS = 2**32  # JAX keeps 32 bits of a seed: beyond them two seeds would draw the same noise.


def parse(config, command, arguments, *, positional=None, after_help=''):
  """The dataclass `config` filled from the arguments of `certjax COMMAND`.

  Args:
    config: a config dataclass.
    command: its name.
    arguments: list of strings.
    positional: a field that is given without its name, or not at all.
    after_help: what `--help` prints below the options.

  Raises:
    SystemExit: with code 2 and an explanation, as tyro does; with 0 after `--help`.
  """
  config = config if positional is None else _with_positional(config, positional)
  try:
    return tyro.cli(
      tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(config),
      prog=f'certjax {command}',
      args=arguments,
    )
  except SystemExit as stop:
    if after_help and not stop.code:
      print(after_help)
    raise


def contract(arguments, *, option=None) -> str:
  """The contract card of the method that is named beside `--help`, '' without one of the two.

  Args:
    arguments: list of strings.
    option: what names the method, as '--method'; None for a rule of `certjax poison`, which stands alone.

  Raises:
    ValueError: for an unknown method, or a norm in which it proves nothing.
  """
  if not {'-h', '--help'} & set(arguments):
    return ''
  rule = next((word for word in arguments if word in configs.POISONING), None)
  method = rule if option is None else _value(arguments, option)
  if method is None:
    return ''
  return f'\n{configs.contract_text(configs.contract(method, norm=_value(arguments, "--norm")))}'


def _value(arguments, option):
  """What follows an option, as `--method ibp` or `--method=ibp`; None where it is not there."""
  words = [part for word in arguments for part in word.split('=', 1)]
  at = words.index(option) + 1 if option in words else len(words)
  return words[at] if at < len(words) else None


def _with_positional(config, name):
  """A subclass whose field tyro takes as positional: configs themselves know nothing of tyro."""
  hint = typing.get_type_hints(config)[name]
  marked = typing.Annotated[hint, tyro.conf.Positional, tyro.conf.arg(metavar=f'[{name.upper()}]')]
  body = {
    '__annotations__': {name: marked}, name: getattr(config, name), '__doc__': config.__doc__,
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
