"""Records where a file cannot be appended to: numbered segments, written once and whole.

Object stores have no append, and mounted drives lose it when they lose the connection. So finished
records wait in a journal, an append-only file in the local cache directory, until a segment of them
is closed. A killed process loses nothing on the same machine; if the machine goes, so do the records
of the journal: those appended within a minute after the last segment was closed, at most
`segment_images`.
"""

import hashlib
import os
import pathlib
import time

from certjax.records import _files, _lines
from certjax.records._append import Store, append_store
from certjax.records._place import is_remote, names, read_all, write_whole, writing

_CLOSE_SECONDS = 60.0
_now = time.monotonic


def journal_directory(directory, stem):
  """Where the journal of one shard lives: in the cache directory, keyed by the shard's place."""
  cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  place = os.fspath(directory if is_remote(directory) else directory.resolve())
  return pathlib.Path(cache) / 'certjax' / 'journals' / _key(f'{place}/{stem}'.encode())


def segment_store(directory, shard, header, journal, *, segment_images, check):
  """A `Store` of segments; indices increase within one run, but may fill gaps of earlier ones.

  Args:
    directory: path of the run, local or remote.
    shard: (index, count).
    header: dict of JSON values, that of the shard.
    journal: a local directory that exists.
    segment_images: a segment is closed at so many records, or a minute after the last was.
    check: `check(renew=False)` raises if the lock is lost.
  """
  number, closed = _read_segments(directory, shard, header)
  stored, timed = (
    journal / f'{_key(_lines.encode_header(header))}.{kind}.jsonl' for kind in ('records', 'timing')
  )
  waiting = append_store(stored, timed, header)
  timings = _read_timings(timed)
  finished = _lines.join([(directory, closed), (stored, waiting.finished)])
  known = {record['index'] for record in closed}
  pending = {
    record['index']: (record, timings.get(record['index']))
    for record in waiting.finished
    if record['index'] not in known
  }
  closed_at = _now()

  def append(record, timing=None):
    nonlocal waiting
    if waiting is None:
      waiting = append_store(stored, timed, header)
    waiting.append(record, timing)
    pending[record['index']] = record, timing
    if len(pending) >= segment_images or _now() - closed_at >= _CLOSE_SECONDS:
      close()

  def close():
    nonlocal number, closed_at, waiting
    if pending:
      check(renew=True)
      _write_segment(directory, shard, header, number, [pending[i] for i in sorted(pending)])
      number += 1
      pending.clear()
    closed_at, waiting = _now(), None
    for path in (stored, timed):  # What they hold is in segments now.
      path.unlink(missing_ok=True)

  if number == 0:  # The header shows that the shard has begun, and may be all there is of it.
    _write_segment(directory, shard, header, number, [])
    number = 1
  close()
  return Store(finished, append, close)


def segment_name(kind, shard, number):
  """The name of one segment.

  Example:
    >>> segment_name('records', (0, 1), 7)
    'records-00000-of-00001.segment-000007.jsonl'
  """
  return f'{_files.stem(kind, *shard)}.segment-{number:06}.jsonl'


def _read_segments(directory, shard, header):
  """The number of the next segment, and the records of all that are whole; others go."""
  new = _lines.decode(_lines.encode_header(header))
  parsed = ((name, _files.parse_name(name)) for name in names(directory))
  ours = [
    (directory / name, parts.segment)
    for name, parts in parsed
    if parts and parts[:3] == ('records', *shard) and parts.segment is not None
  ]
  useless, joined, number = [], [], 0
  for (path, segment), content in zip(ours, read_all([path for path, _ in ours]), strict=True):
    there, records = _files.read_file(content, path, segment=True) or ({}, [])
    there.pop('segment', None)
    if not records and there != new:  # Torn, or a header alone: nothing is lost.
      useless.append(path)
      continue
    _lines.check_header(new, there, path)
    joined.append((path, records))
    number = max(number, segment + 1)
  for path in useless:
    with writing(path):
      path.unlink()
  return number, _lines.join(joined)


def _write_segment(directory, shard, header, number, entries):
  """Closes a segment; its timings first, so that no record is without."""
  records = [record for record, _ in entries]
  first = {**header, 'segment': {'number': number, 'num_records': len(records)}}
  lines = [_lines.encode_record(record, timing) for record, timing in entries]
  if timings := [timing for _, timing in lines if timing]:
    write_whole(directory / segment_name('timing', shard, number), b''.join(timings))
  content = _lines.encode_header(first) + b''.join(record for record, _ in lines)
  write_whole(directory / segment_name('records', shard, number), content)


def _read_timings(path):
  entries = _lines.parse(path.read_bytes(), path)[0] if path.exists() else []
  return {entry['index']: {key: entry[key] for key in entry if key != 'index'} for entry in entries}


def _key(content):
  return hashlib.sha256(content).hexdigest()[:32]
