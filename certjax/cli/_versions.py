"""`certjax version`: what a report of a defect should begin with."""

import importlib.metadata
import json
import platform

import certjax
from certjax import configs
from certjax.cli import _parse

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scipy')


def version(arguments):
  """`certjax version [--json]`, and `certjax --version`."""
  config = _parse.parse(configs.Version, 'version', arguments)
  found = versions()
  print(json.dumps(found, indent=2) if config.json else lines(found))


def versions() -> dict:
  """Name -> version of certjax and what it stands on, of Python, the platform and the devices.

  Nothing here fails: it is asked for where something is broken. A package that is not installed,
  or a JAX that does not start, is named as such.

  Returns:
    A dict of strings.
  """
  return {
    'certjax': certjax.__version__,
    **{name: _installed(name) for name in _PACKAGES},
    'python': platform.python_version(),
    'platform': platform.platform(),
    'devices': _devices(),
  }


def lines(found) -> str:
  """`versions` as text, one a line.

  Example:
    >>> print(lines({'jax': '0.10.2', 'devices': 'cpu: TFRT_CPU_0'}))
    jax               0.10.2
    devices           cpu: TFRT_CPU_0
  """
  return '\n'.join(f'{name:<17} {value}' for name, value in found.items())


def _installed(name):
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'


def _devices():
  """Of this process; why there are none, where JAX does not start."""
  try:
    import jax

    return f'{jax.default_backend()}: {", ".join(map(str, jax.local_devices()))}'
  except Exception as error:  # Drivers and plugins raise whatever they like.
    return f'none: {" ".join(str(error).split())}'
