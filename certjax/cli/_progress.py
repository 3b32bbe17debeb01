"""Progress on stderr: a bar with rate and ETA on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time

_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def bar(title, unit):
  """Yields an object with `start(done, total)`, `at(done, text)` and `advance()`."""
  from rich.console import Console
  from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
  )

  console = Console(stderr=True)
  progress = Progress(
    TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[rate]}'),
    TimeElapsedColumn(), TextColumn('ETA'), TimeRemainingColumn(), TextColumn('{task.fields[text]}'),
    console=console, disable=not console.is_terminal,
  )  # fmt: skip
  with progress:
    yield _Bar(progress, progress.add_task(title, rate='', text='', total=None), title, unit)


class _Bar:
  """State of one bar; only the command line holds state."""

  def __init__(self, progress, task, title, unit):
    self._progress, self._task, self._title, self._unit = progress, task, title, unit
    self._quiet = progress.disable
    self._begun = self._said = time.perf_counter()
    self._first = self._done = 0
    self._total = None

  def start(self, done, total):
    self._begun = time.perf_counter()
    self._first, self._done, self._total = done, done, total
    self._progress.update(self._task, completed=done, total=total)
    if self._quiet:
      print(f'{self._title}: {done} of {total} {self._unit} done', file=sys.stderr)

  def advance(self):
    self.at(self._done + 1)

  def at(self, done, text=''):
    self._done = done
    now = time.perf_counter()
    rate = (done - self._first) / max(now - self._begun, 1e-9)
    pace = f'{rate:.1f} {self._unit}/s'
    self._progress.update(self._task, completed=done, rate=pace, text=text)
    if self._quiet and (now - self._said > _SECONDS_BETWEEN_LINES or done == self._total):
      self._said = now
      left = (self._total - done) / max(rate, 1e-9)
      print(
        f'{self._title}: {done} of {self._total} {self._unit}, {pace}, ETA {left:.0f} s {text}'.rstrip(),
        file=sys.stderr,
      )


def warn(message):
  """One warning line on stderr."""
  print(f'certjax: warning: {message}', file=sys.stderr)
