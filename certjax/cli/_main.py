"""Dispatch of subcommands, and one clear line for whatever goes wrong."""

import os
import signal
import sys

from certjax.cli import _signals

_COMMANDS = {
  'quickstart': 'train on digits, certify held-out digits, print the table: start here',
  'train': 'train a classifier from a preset',
  'certify': 'certify test images of a trained run (CERTIFY)',
  'predict': 'classify test images by the smoothed classifier (PREDICT)',
  'attack': 'attack test images: accuracy under each attack, and in the worst case',
  'sweep': 'train and certify for several values of one parameter of the noise',
  'poison': 'certify test images against poisoned training samples',
  'report': 'tables and plots from records; compare two runs',
  'reproduce': 'published tables made again: their numbers and ours side by side',
  'verify-cards': 'cards of `certjax reproduce` made again: does each number come out?',
  'study': 'which adversarial images do people see: a page, its endpoint, the analysis',
  'spectrum': 'singular values and norm bounds of the layers of a trained run',
  'data': 'list and prepare data sets',
  'doctor': 'devices, versions, a self-test certificate, a speed line',
  'version': 'versions of certjax and what it stands on, platform, devices (also --version)',
}
_STOPPED, _INTERRUPTED, _USAGE, _CONTRADICTION = 75, 130, 2, 3


def main(argv=None) -> int:
  """Runs a command line and returns its exit code."""
  argv = sys.argv[1:] if argv is None else list(argv)
  if not argv or argv[0] in ('-h', '--help'):
    print(_usage())
    return 0 if argv else _USAGE
  if argv[0] == '--version':
    argv[0] = 'version'
  if argv[0] not in _COMMANDS:
    return _fail(f'unknown command {argv[0]!r}; the commands are {", ".join(_COMMANDS)}.')
  return _guarded(argv[0], argv[1:])


def _guarded(command, arguments):
  previous = signal.signal(signal.SIGTERM, _signals.terminate)
  try:
    _run(command, arguments)
    return 0
  except KeyboardInterrupt:
    return _say(_INTERRUPTED, 'interrupted; what is finished is kept, the same command continues.')
  except _signals.Terminated:
    return _say(
      _STOPPED, 'stopped by SIGTERM; what is finished is kept, the same command continues.'
    )
  except _signals.Contradiction as found:
    return _say(_CONTRADICTION, str(found))
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except Exception as error:
    message = _one_line(error)
    if message is None or os.environ.get('CERTJAX_DEBUG'):
      raise
    return _fail(message)
  finally:
    signal.signal(signal.SIGTERM, previous)


def _run(command, arguments):
  from certjax.cli import (
    _attack,
    _certify,
    _data,
    _doctor,
    _poison,
    _quickstart,
    _report,
    _reproduce,
    _spectrum,
    _study,
    _sweep,
    _train,
    _versions,
  )

  run = {
    'quickstart': _quickstart.quickstart,
    'train': _train.train,
    'certify': _certify.certify,
    'predict': _certify.predict,
    'attack': _attack.attack,
    'sweep': _sweep.sweep,
    'poison': _poison.poison,
    'report': _report.report,
    'reproduce': _reproduce.reproduce,
    'verify-cards': _reproduce.verify_cards,
    'study': _study.study,
    'spectrum': _spectrum.spectrum,
    'data': _data.data,
    'doctor': _doctor.doctor,
    'version': _versions.version,
  }[command]
  run(arguments)


def _usage():
  rows = '\n'.join(f'  {name:<12} {text}' for name, text in _COMMANDS.items())
  return (
    'usage: certjax COMMAND [options]   (certjax COMMAND --help explains every option)\n\n'
    f'{rows}\n\nCERTJAX_DEBUG=1 shows the traceback behind an error.'
  )


def _one_line(error):
  """What to tell the user; None for a defect of certjax, whose traceback is the message."""
  if isinstance(error, OSError) and error.strerror:
    place = '' if error.filename is None else f'{error.filename}: '
    return f'{place}{error.strerror}'
  if isinstance(error, (ValueError, OSError)):
    return ' '.join(str(error).split())
  if 'RESOURCE_EXHAUSTED' in str(error):  # JAX's exception class has several names.
    return 'out of memory: lower `--chunk` (certify, predict) or `--batch-size` (train).'
  return None


def _fail(message):
  return _say(_USAGE, f'error: {message}')


def _say(code, message):
  print(f'certjax: {message}', file=sys.stderr)
  return code
