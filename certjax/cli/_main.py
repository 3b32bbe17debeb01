"""Dispatch of subcommands, and one clear line for whatever goes wrong."""

import os
import signal
import sys

_COMMANDS = {
  'quickstart': 'train on digits, certify held-out digits, print the table: start here',
  'train': 'train a classifier from a preset',
  'certify': 'certify test images of a trained run (CERTIFY)',
  'predict': 'classify test images by the smoothed classifier (PREDICT)',
  'report': 'tables and plots from records; compare two runs',
  'data': 'list and prepare data sets',
  'doctor': 'devices, versions, a self-test certificate, a speed line',
}
_STOPPED, _INTERRUPTED, _USAGE = 75, 130, 2


class _Terminated(Exception):
  """SIGTERM arrived."""


def main(argv=None) -> int:
  """Runs a command line and returns its exit code."""
  argv = sys.argv[1:] if argv is None else list(argv)
  if not argv or argv[0] in ('-h', '--help'):
    print(_usage())
    return 0 if argv else _USAGE
  if argv[0] == '--version':
    import certjax

    print(f'certjax {certjax.__version__}')
    return 0
  if argv[0] not in _COMMANDS:
    return _fail(f'unknown command {argv[0]!r}; the commands are {", ".join(_COMMANDS)}.')
  return _guarded(argv[0], argv[1:])


def _guarded(command, arguments):
  previous = signal.signal(signal.SIGTERM, _terminate)
  try:
    _run(command, arguments)
    return 0
  except KeyboardInterrupt:
    print('\ncertjax: interrupted; finished records are kept, the same command continues.',
          file=sys.stderr)  # fmt: skip
    return _INTERRUPTED
  except _Terminated:
    print('\ncertjax: stopped by SIGTERM; the same command continues.', file=sys.stderr)
    return _STOPPED
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (ValueError, OSError) as error:
    if os.environ.get('CERTJAX_DEBUG'):
      raise
    return _fail(' '.join(str(error).split()))
  finally:
    signal.signal(signal.SIGTERM, previous)


def _run(command, arguments):
  from certjax.cli import _data, _jobs, _report

  run = {
    'quickstart': _jobs.quickstart,
    'train': _jobs.train,
    'certify': _jobs.certify,
    'predict': _jobs.predict,
    'report': _report.report,
    'data': _data.data,
    'doctor': _jobs.doctor,
  }[command]
  run(arguments)


def _usage():
  rows = '\n'.join(f'  {name:<11} {text}' for name, text in _COMMANDS.items())
  return (
    'usage: certjax COMMAND [options]   (certjax COMMAND --help explains every option)\n\n'
    f'{rows}\n\nCERTJAX_DEBUG=1 shows the traceback behind an error.'
  )


def _fail(message):
  print(f'certjax: error: {message}', file=sys.stderr)
  return _USAGE


def _terminate(signum, frame):
  del signum, frame
  raise _Terminated
