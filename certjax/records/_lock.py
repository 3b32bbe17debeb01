"""One writer a file: a kernel lock where there is one, a lease that must be renewed elsewhere.

The kernel drops `flock` when its holder dies, however it dies. Network file systems and object
stores know no such thing: there the holder renews a small file every minute, and a lease that was
not renewed for five minutes is taken over. Such stores create no file atomically either: of two
writers that start within half a second one may notice only at its next renewal; it stops there.
"""

import errno
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

from certjax.records._place import reaching, writing

try:
  import fcntl
except ImportError:  # Windows.
  fcntl = None

_LEASE_SECONDS, _RENEW_SECONDS, _SETTLE_SECONDS = 300.0, 60.0, 0.5
_now = time.time


@contextmanager
def held(path):
  """Holds the lock file `path` (local), by a lease beside it where the file system has no locks.

  Args:
    path: the lock file; it stays, since removing it would let two writers lock two files.

  Yields:
    `check(renew=False)`, which raises once the lock is lost; a kernel lock never is.

  Raises:
    OSError: if another writer holds it: who, since when, and what to do.
  """
  with writing(path):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    if not _flock(descriptor, path):
      with lease(path.with_suffix('.lease'), token=os.urandom(16).hex()) as check:
        yield check
      return
    with suppress(OSError):  # It only helps the message of others; the disk may be full.
      os.ftruncate(descriptor, 0)
      os.pwrite(descriptor, _holder(), 0)
    yield lambda renew=False: None
  finally:
    os.close(descriptor)


@contextmanager
def lease(path, token):
  """Holds a lease: a file with host, process, token and the time of its last renewal.

  Args:
    path: the file, local or remote.
    token: names the holder; a lease with this token is our own of an earlier life.

  Yields:
    `check(renew=False)`, which raises once another has taken the lease over.

  Raises:
    OSError: if it is another's and younger than five minutes, or cannot be written.
  """
  started, guard, lost, over = _now(), threading.Lock(), [], threading.Event()

  def check(renew=False):
    with guard:
      if renew and not lost:
        holder = _read(path)
        if holder.get('token', token) == token:
          with writing(path):
            path.write_bytes(_holder(started, token=token, time=_now()))
        else:
          lost.append(f'taken over by {_describe(holder)}; what is written is kept, this run stops')
    if lost:
      raise _refusal(path, lost[0])

  def renew():
    while not over.wait(_RENEW_SECONDS):
      with suppress(OSError):  # A lost lease is remembered, and a store may be back in a minute.
        check(renew=True)

  _refuse_live(path, token)
  with writing(path):
    path.write_bytes(_holder(started, token=token, time=_now()))
  time.sleep(_SETTLE_SECONDS)
  _refuse_live(path, token)
  thread = threading.Thread(target=renew, daemon=True)
  thread.start()
  try:
    yield check
  finally:
    over.set()
    thread.join()
    with suppress(OSError):
      if _read(path).get('token') == token:
        path.unlink()


def _flock(descriptor, path):
  """Whether the kernel gave the lock; False where there are none."""
  if fcntl is None:
    return False
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError as error:
    remedy = 'wait for it, stop it, or use another --out'
    raise _refusal(path, f'{_describe(_read(path))} is writing here: {remedy}') from error
  except OSError:
    return False


def _refuse_live(path, token):
  holder = _read(path)
  age = _now() - holder.get('time', 0)
  if holder.get('token', token) != token and age < _LEASE_SECONDS:
    raise _refusal(
      path,
      f'{_describe(holder)} is writing here, heard of {max(age, 0):.0f} s ago: wait for it, stop '
      f'it, or use another --out; if it is dead, wait until 5 minutes have passed',
    )


def _refusal(path, text):
  return OSError(errno.EWOULDBLOCK, text, str(path))


def _holder(started=None, **fields):
  fields |= {'host': socket.gethostname(), 'pid': os.getpid(), 'started': started or _now()}
  return json.dumps(fields).encode() + b'\n'


def _read(path):
  """The holder, {} where there is none, or only half of it has been written."""
  try:
    with reaching(path):
      content = path.read_bytes()
    fields = json.loads(content)
    return fields if isinstance(fields, dict) else {}
  except (FileNotFoundError, ValueError):
    return {}


def _describe(holder):
  if not holder:
    return 'another process'
  since = time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(holder.get('started', 0)))
  return f'process {holder.get("pid")} on {holder.get("host")} (started {since})'
