"""SIGTERM, which announces pre-emption: work in progress ends at its next whole step."""

import contextlib
import signal


class Terminated(BaseException):
  """SIGTERM arrived; like Ctrl-C no `Exception`, which libraries catch."""


def terminate(signum, frame):
  """The handler of a command: stops at once."""
  del signum, frame
  raise Terminated


@contextlib.contextmanager
def deferred():
  """Yields `stopped() -> bool`; inside, SIGTERM waits for the block to see it and to end.

  A second SIGTERM stops at once.

  Raises:
    Terminated: at the end, if the signal came.
  """
  came = []

  def note(signum, frame):
    came.append(signum)
    signal.signal(signal.SIGTERM, terminate)

  previous = signal.signal(signal.SIGTERM, note)
  try:
    yield lambda: bool(came)
  finally:
    signal.signal(signal.SIGTERM, previous)
  if came:
    raise Terminated


class Contradiction(Exception):
  """What was claimed did not come out again: one line that says what (exit code 3)."""
