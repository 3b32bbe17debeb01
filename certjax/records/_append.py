"""Append-only files: records, and timings beside them, one `write` a line.

A killed process leaves at most one torn line, the last, which the next start cuts off. A crash of
the machine loses what was not yet synced: lines written within a second after the last sync.
"""

import errno
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

from certjax.records import _lines
from certjax.records._place import sync_directory, writing

RECORDS, TIMING = 'records.jsonl', 'timing.jsonl'

_SYNC_SECONDS = 1.0
_now = time.monotonic


class Store(NamedTuple):
  """Records on their way to a disk.

  Attributes:
    finished: the records that were there, in index order.
    append: `append(record, timing=None)`.
    close: `close()`: what was appended outlives the machine.
  """

  finished: list
  append: Callable
  close: Callable


def start(directory, header):
  """Opens a run: writes the header of a new one, or checks and mends the one that is there.

  A torn last line (killed while writing) is cut off both files, and so are timings whose record was
  never written; what remains is returned, so that the caller goes on with the first missing index.
  A file of a header alone may be replaced by another header: nothing is lost. Takes no lock:
  `writer` does.

  Args:
    directory: path of the run, created with its parents where missing.
    header: dict of JSON values: everything that the records depend on (method, weights, versions).

  Returns:
    The finished records, a list of dicts in index order; empty for a new run.

  Raises:
    ValueError: if the run was started under another header, or a line before the last is corrupt.
    OSError: if the directory cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   _ = start(folder, {'norm': 'l2'})
    ...   append(folder, {'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   [record['index'] for record in start(folder, {'norm': 'l2'})]
    [0]
  """
  directory = pathlib.Path(directory)
  with writing(directory):
    directory.mkdir(parents=True, exist_ok=True)
  return _open(directory / RECORDS, directory / TIMING, _lines.encode_header(header))


def append(directory, record, timing=None):
  """Appends one image to a run that `start` opened: one write per line.

  The timing goes first: a run killed between the two lines leaves a timing without a record, which
  `start` drops, never a record without its timing. Nothing is synced to the disk: what was written
  survives the death of the process, not of the machine.

  Args:
    directory: path of the run.
    record: dict with index, label, predict, radius (unrounded, reads back bit for bit) and what the
      method adds. Infinity, which JSON lacks, is stored as the string "inf"; a NaN proves nothing
      and is refused. That indices increase is the caller's matter.
    timing: dict, say of seconds, host and device, or None.

  Raises:
    ValueError: if a field is missing, NaN, or no JSON value.
    OSError: if a line cannot be written whole; a part of it is taken back.

  Example:
    >>> import tempfile
    >>> from certjax.records import read
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   finished = start(folder, {'norm': 'l2'})
    ...   append(folder, {'index': 0, 'label': 3, 'predict': 3, 'radius': float('inf')})
    ...   print(finished, read(folder)[1])
    [] [{'index': 0, 'label': 3, 'predict': 3, 'radius': inf}]
  """
  directory = pathlib.Path(directory)
  lines = _lines.encode_record(record, timing)
  _write_both(directory / RECORDS, directory / TIMING, *lines)


def append_store(records_path, timing_path, header):
  """A `Store` of two files; its indices must increase.

  Args:
    records_path: file of the records.
    timing_path: file of the timings.
    header: dict of JSON values.
  """
  finished = _open(records_path, timing_path, _lines.encode_header(header))
  sync_directory(records_path.parent)
  last, synced, unsynced = (finished[-1]['index'] if finished else -1), -math.inf, False

  def append(record, timing=None):
    nonlocal last, synced, unsynced
    lines = _lines.encode_record(record, timing)
    if record['index'] <= last:
      raise ValueError(f'`index`={record["index"]} after {last}: must increase in {records_path}')
    now = _now()
    unsynced = now - synced < _SYNC_SECONDS
    _write_both(records_path, timing_path, *lines, sync=not unsynced)
    last, synced = record['index'], synced if unsynced else now

  def close():
    if unsynced:
      for path in (records_path, timing_path):
        _sync(path)

  return Store(finished, append, close)


def _open(records_path, timing_path, line):
  """The records of a file that then ends with them; writes the header where there is none."""
  content = records_path.read_bytes() if records_path.exists() else b''
  objects, ends = _lines.parse(content, records_path)
  new = _lines.decode(line)
  if len(objects) == 1 and _lines.is_header(objects[0]) and new != objects[0]:
    objects, ends = [], [0]  # A header alone: nothing is lost with it.
  elif objects:
    _lines.check_header(new, objects[0], records_path)
  elif not line.startswith(content):
    raise ValueError(
      f'{records_path}: no header of this run; use another --out, or remove the file'
    )
  records = _lines.checked(objects[1:], records_path)
  _truncate(records_path, ends[-1])
  if not objects:
    _write_line(records_path, line)
  _trim_timing(timing_path, {record['index'] for record in records})
  return records


def _trim_timing(path, known):
  """Cuts the sidecar at a torn line or at the first timing whose record was never written."""
  if path.exists():
    entries, ends = _lines.parse(path.read_bytes(), path)
    kept = [entry.get('index') in known for entry in entries] + [False]
    _truncate(path, ends[kept.index(False)])


def _truncate(path, size):
  if path.exists() and path.stat().st_size > size:
    with writing(path):
      os.truncate(path, size)


def _write_both(records_path, timing_path, record, timing, sync=False):
  if timing:
    _write_line(timing_path, timing, sync)
  _write_line(records_path, record, sync)


def _write_line(path, line, sync=False):
  """Appends a line whole or not at all."""
  with writing(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
      written = os.write(descriptor, line)
      if written < len(line):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise OSError(errno.ENOSPC, f'only {written} of {len(line)} bytes fitted')
      if sync:
        os.fsync(descriptor)
    finally:
      os.close(descriptor)


def _sync(path):
  if path.exists():
    with writing(path):
      descriptor = os.open(path, os.O_WRONLY)
      try:
        os.fsync(descriptor)
      finally:
        os.close(descriptor)
