"""Where a run lives: a local directory, or what `etils.epath` reaches (gs://, s3://, ...)."""

import errno
import os
import pathlib
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_READERS = 16
_COLLAPSED = re.compile('^(gs|s3|az|hf):/(?!/)')  # What pathlib makes of gs://.
_SCHEME = re.compile('[a-z][a-z0-9+.-]*://')


def locate(path):
  """A path that is ready for use.

  Args:
    path: a string or path; one with a scheme may have gone through `pathlib`, which makes gs:/ of
      gs://.

  Returns:
    A `pathlib.Path`, or an `etils.epath.Path` where the path has a scheme.

  Raises:
    ValueError: if the scheme is unknown.

  Example:
    >>> locate('runs/a').name
    'a'
  """
  text = _COLLAPSED.sub(r'\1://', os.fspath(path))
  if not _SCHEME.match(text):
    return pathlib.Path(text)
  from etils import epath  # Here, so that local runs start fast.

  try:
    return epath.Path(text)
  except KeyError as error:
    known = 'gs://, s3://, az://, hf://, local paths'
    raise ValueError(f'{text}: unknown scheme; known are {known}') from error


def is_remote(path):
  """Whether a path that `locate` gave has a scheme."""
  return not isinstance(path, pathlib.Path)


def names(directory):
  """The sorted names in a directory, none where it is missing."""
  with reaching(directory):
    try:
      return sorted(path.name for path in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
      return []


def read_all(paths):
  """The contents of files; those of a remote directory many at a time, since each takes a while."""
  if not any(map(is_remote, paths)):
    return [path.read_bytes() for path in paths]
  with reaching(paths[0].parent), ThreadPoolExecutor(_READERS) as pool:
    return list(pool.map(lambda path: path.read_bytes(), paths))


def write_whole(path, content):
  """Writes a file such that readers see all of it or nothing, also after a crash."""
  with writing(path):
    if is_remote(path):  # An object appears with its last byte.
      path.write_bytes(content)
      return
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
      with open(part, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(part, path)
    finally:
      part.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory):
  """Makes the names in a local directory survive a crash of the machine, where that is possible."""
  try:
    descriptor = os.open(directory, os.O_RDONLY)
  except OSError:  # Not on this system.
    return
  try:
    os.fsync(descriptor)
  except OSError:
    pass
  finally:
    os.close(descriptor)


@contextmanager
def writing(path):
  """Makes any failure to write one line that says where the run stands."""
  with reaching(path):
    try:
      yield
    except OSError as error:
      reason = error.strerror or _one_line(error)
      text = f'cannot write: {reason}; earlier lines are intact, the same command resumes'
      raise OSError(error.errno or errno.EIO, text, str(path)) from error


@contextmanager
def reaching(path):
  """Makes one line of whatever a remote store raises: its libraries share no exception class."""
  try:
    yield
  except OSError:
    raise
  except Exception as error:
    if not is_remote(path):
      raise
    missing = isinstance(error, ImportError)
    hint = '; `pip install "etils[epath-gcs]"`, or s3, may help' if missing else ''
    raise OSError(errno.EIO, f'cannot reach it: {_one_line(error)}{hint}', str(path)) from error


def _one_line(error):
  return ' '.join(str(error).split()) or type(error).__name__
