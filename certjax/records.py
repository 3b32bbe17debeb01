"""Append-only records of a certification run: what was proved, image by image.

A run is a directory. `records.jsonl` opens with the header (all that the proofs depend on) and
holds one line per image, in index order, of deterministic fields only: two runs under one header
give the same bytes however often they were stopped. `timing.jsonl` beside it holds what differs
(seconds, host, device). A line is one `write` on an append-only descriptor, so a killed run leaves
at most one torn line, the last, which `start` removes. JSON only: the field's TSV is `report`'s.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

SCHEMA = 1

RECORDS, TIMING = 'records.jsonl', 'timing.jsonl'

_REQUIRED = ('index', 'label', 'predict', 'radius')
_ABSENT = object()

# From schema n to n + 1: (header, records) -> (header, records). Schema 0 is the field's TSV, which
# is no JSON and has its times in it: `report.load` reads it.
_UPGRADES = {}


def start(directory, header):
  """Opens a run: writes the header of a new one, or checks and mends the one that is there.

  A torn last line (killed while writing) is cut off both files, and so are timings whose record was
  never written; what remains is returned, so that the caller goes on with the first missing index.

  Args:
    directory: path of the run, created with its parents where missing.
    header: dict of JSON values: everything that the records depend on (method, weights, versions).

  Returns:
    The finished records, a list of dicts in index order; empty for a new run.

  Raises:
    ValueError: if the run was started under another header, or a line before the last is corrupt.
    OSError: if the directory cannot be written.
  """
  directory = Path(directory)
  path = directory / RECORDS
  line = _encode({**header, 'schema': SCHEMA}, where='header')
  with _writing(directory):
    directory.mkdir(parents=True, exist_ok=True)
  objects, ends = _parse(path) if path.exists() else ([], [0])
  if objects:
    _check_header(_decode(line), objects[0], path)
  elif path.exists() and not line.startswith(path.read_bytes()):
    raise ValueError(f'{path}: no header of this run; use another --out, or remove the file')
  _truncate(path, ends[-1])
  if not objects:
    _write_line(path, line)
  records = _checked(objects[1:], path)
  _trim_timing(directory / TIMING, {record['index'] for record in records})
  return records


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
  """
  _check_fields(record, 'append')
  line = _encode(record, where=f'record {record["index"]}')
  if timing is not None:
    timing = _encode({'index': record['index'], **timing}, where=f'timing {record["index"]}')
    _write_line(Path(directory) / TIMING, timing)
  _write_line(Path(directory) / RECORDS, line)


def read(path):
  """Reads a run: (header, records).

  A torn last line is ignored (the run is still going on, or will resume); any other damage is an
  error. Runs of older schemas are upgraded in memory.

  Args:
    path: a run's directory or its `records.jsonl`.

  Returns:
    The header, and a list of records in index order, infinite values as floats.

  Raises:
    ValueError: naming file and line, if a line before the last is corrupt, if indices do not
      increase, or if the schema is newer than this certjax.
  """
  path = Path(path)
  path = path / RECORDS if path.is_dir() else path
  objects, _ = _parse(path)
  if not objects or not isinstance(objects[0].get('schema'), int):
    raise ValueError(f'{path}:1: no header with a "schema": not the records of a certjax run')
  return _upgrade(objects[0], objects[1:], path)


def read_timing(path):
  """Reads the timing sidecar of a run: a dict from index to its fields, empty where there is none.

  Args:
    path: a run's directory or its `records.jsonl`.
  """
  path = Path(path)
  path = (path if path.is_dir() else path.parent) / TIMING
  return {entry['index']: entry for entry in _parse(path)[0]} if path.exists() else {}


def merge(paths):
  """Joins runs of parts of a data set: (header, records in index order).

  Args:
    paths: directories or `records.jsonl` files with equal headers.

  Raises:
    ValueError: if headers differ, or two runs hold different records of one image.
  """
  header, merged = None, {}
  for path in paths:
    other, records = read(path)
    header = other if header is None else header
    _check_header(header, other, path)
    for record in records:
      known = merged.setdefault(record['index'], record)
      if known != record:
        raise ValueError(f'{path}: index {record["index"]} is {record}, elsewhere {known}')
  if header is None:
    raise ValueError('`paths` is empty: nothing to merge')
  return header, [merged[index] for index in sorted(merged)]


def fingerprint(tree):
  """SHA-256 of arrays, their names, dtypes and shapes: of weights, or of decoded images.

  Args:
    tree: bytes, an array, or dicts and lists of such; dicts are read in the order of their keys.

  Returns:
    64 hexadecimal digits.

  Raises:
    ValueError: if a leaf is no array of numbers.

  Example:
    >>> fingerprint({'bias': [1.0], 'kernel': b'01'})[:16]
    '1da9eca806e4131f'
  """
  digest = hashlib.sha256()
  _feed(digest, tree)
  return digest.hexdigest()


def _feed(digest, node):
  """Adds one node; every piece tells its kind and length first, so that no two trees read alike."""

  def tell(*what):
    digest.update(json.dumps(what).encode() + b'\n')

  if isinstance(node, Mapping):
    tell('dict', *sorted(node))
    for key in sorted(node):
      _feed(digest, node[key])
  elif isinstance(node, (list, tuple)):
    tell('list', len(node))
    for child in node:
      _feed(digest, child)
  elif isinstance(node, bytes):
    tell('bytes', len(node))
    digest.update(node)
  else:
    import numpy as np  # Here, so that a writer of records starts fast.

    array = np.asarray(node)
    if array.dtype.kind in 'OUS':
      raise ValueError(f'a fingerprint is of numbers and bytes, got {type(node).__name__}')
    if array.dtype.byteorder == '>':
      array = array.astype(array.dtype.newbyteorder('<'))
    tell('array', array.dtype.name, *array.shape)
    digest.update(array.tobytes())


def _encode(fields, where):
  """One line of JSON with sorted keys; infinity becomes the string "inf"."""

  def plain(value):
    value = value.tolist() if hasattr(value, 'tolist') else value
    return 'inf' if isinstance(value, float) and value == math.inf else value

  try:
    fields = {key: plain(value) for key, value in fields.items()}
    return json.dumps(fields, sort_keys=True, allow_nan=False).encode() + b'\n'
  except (TypeError, ValueError) as error:
    raise ValueError(f'{where} is not JSON: {error}; got {fields}') from error


def _decode(line):
  fields = json.loads(line)
  if not isinstance(fields, dict):
    raise ValueError('not an object')
  return {key: math.inf if value == 'inf' else value for key, value in fields.items()}


def _parse(path):
  """The objects of a JSON-lines file, and the offsets before the first and after each of them."""
  lines = path.read_bytes().split(b'\n')
  torn = lines.pop()
  objects, ends = [], [0]
  for number, line in enumerate(lines, 1):
    try:
      objects.append(_decode(line))
    except ValueError as error:
      if number == len(lines) and not torn:
        break
      hint = ' (a TSV log? `certjax.report.load` reads it)' if b'\t' in line else ''
      raise ValueError(f'{path}:{number}: corrupt line: {error}{hint}') from error
    ends.append(ends[-1] + len(line) + 1)
  return objects, ends


def _checked(records, path):
  """The records, if every field is there and indices increase."""
  last = -1
  for number, record in enumerate(records, 2):
    _check_fields(record, f'{path}:{number}')
    if record['index'] <= last:
      raise ValueError(f'{path}:{number}: index {record["index"]} after {last}: must increase')
    last = record['index']
  return records


def _check_fields(record, where):
  if missing := [key for key in _REQUIRED if key not in record]:
    raise ValueError(f'{where}: no field {", ".join(missing)} in {record}')


def _upgrade(header, records, path):
  """A run in the present schema."""
  while (schema := header['schema']) != SCHEMA:
    if schema not in _UPGRADES:
      remedy = 'install a newer certjax' if schema > SCHEMA else 'no upgrade is known'
      raise ValueError(f'{path}:1: schema {schema}, but this certjax reads {SCHEMA}: {remedy}')
    header, records = _UPGRADES[schema](header, records)
    header = {**header, 'schema': schema + 1}
  return header, _checked(records, path)


def _check_header(new, old, path):
  if different := list(differences(new, old)):
    raise ValueError(
      f'{path}: made under another configuration: {"; ".join(different)}. '
      'Use another --out, or the same configuration.'
    )


def differences(new, old, path=''):
  """One phrase for each key path at which two headers differ."""
  if isinstance(new, dict) and isinstance(old, dict):
    for key in sorted(new.keys() | old.keys()):
      values = new.get(key, _ABSENT), old.get(key, _ABSENT)
      yield from differences(*values, f'{path}.{key}' if path else key)
  elif new != old:
    old, new = ('absent' if v is _ABSENT else repr(v) for v in (old, new))
    yield f'{path} is {old} there and {new} here'


def _trim_timing(path, known):
  """Cuts the sidecar at a torn line or at the first timing whose record was never written."""
  if path.exists():
    entries, ends = _parse(path)
    kept = [entry.get('index') in known for entry in entries] + [False]
    _truncate(path, ends[kept.index(False)])


def _truncate(path, size):
  if path.exists() and path.stat().st_size > size:
    with _writing(path):
      os.truncate(path, size)


def _write_line(path, line):
  """Appends a line whole or not at all."""
  with _writing(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
      written = os.write(descriptor, line)
      if written < len(line):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise OSError(errno.ENOSPC, f'only {written} of {len(line)} bytes fitted')
    finally:
      os.close(descriptor)


@contextmanager
def _writing(path):
  """Makes any failure to write one line that says where the run stands."""
  try:
    yield
  except OSError as error:
    text = f'cannot write: {error.strerror}; earlier lines are intact, the same command resumes'
    raise OSError(error.errno, text, str(path)) from error
