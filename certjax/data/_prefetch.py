"""An iterator made in a background thread, a bounded number of items ahead."""

import queue
import threading
from collections.abc import Iterable, Iterator

_POLL_SECONDS = 0.1  # How long a full queue may delay the end of an abandoned thread.


def prefetch(items: Iterable, size: int = 2) -> Iterator:
  """Yields `items` in order while a background thread makes the next `size`.

  The thread starts with the first item asked for. An exception in `items` is raised here, after
  the items before it; closing or dropping the iterator ends the thread.

  Args:
    items: what to iterate over.
    size: how many items may wait, at least 1.

  Returns:
    An iterator over the same items.

  Raises:
    ValueError: if `size` is below 1.

  Example:
    >>> list(prefetch(range(3)))
    [0, 1, 2]
  """
  if size < 1:
    raise ValueError(f'`size` must be at least 1, got {size}.')
  return _consume(items, size)


def _consume(items, size):
  waiting, stop = queue.Queue(size), threading.Event()
  thread = threading.Thread(target=_produce, args=(items, waiting, stop), daemon=True)
  thread.start()
  try:
    while True:
      item, error, finished = waiting.get()
      if error is not None:
        raise error
      if finished:
        return
      yield item
  finally:
    stop.set()
    thread.join()


def _produce(items, waiting, stop):
  try:
    for item in items:
      if not _put(waiting, (item, None, False), stop):
        return
    _put(waiting, (None, None, True), stop)
  except BaseException as error:  # Handed over: the consumer raises it.
    _put(waiting, (None, error, True), stop)


def _put(waiting, message, stop) -> bool:
  """Waits for room; False once nobody will read it."""
  while not stop.is_set():
    try:
      waiting.put(message, timeout=_POLL_SECONDS)
      return True
    except queue.Full:
      continue
  return False
