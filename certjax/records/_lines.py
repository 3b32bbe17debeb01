"""One line of JSON a header or record: written the same way always, checked when it is read."""

import json
import math

SCHEMA = 1

_REQUIRED = ('index', 'label', 'predict', 'radius')
_ABSENT = object()

# From schema n to n + 1: (header, records) -> (header, records). Schema 0 is the field's TSV, which
# is no JSON and has its times in it: `report.load` reads it.
UPGRADES = {}


def encode(fields, where):
  """One line of JSON with sorted keys; infinity becomes the string "inf"."""

  def plain(value):
    value = value.tolist() if hasattr(value, 'tolist') else value
    return 'inf' if isinstance(value, float) and value == math.inf else value

  try:
    fields = {key: plain(value) for key, value in fields.items()}
    return json.dumps(fields, sort_keys=True, allow_nan=False).encode() + b'\n'
  except (TypeError, ValueError) as error:
    raise ValueError(f'{where} is not JSON: {error}; got {fields}') from error


def encode_header(header):
  """The first line of a file."""
  return encode({**header, 'schema': SCHEMA}, where='header')


def encode_record(record, timing):
  """The lines of a record and of its timing, None where there is none."""
  check_fields(record, 'append')
  index = record['index']
  line = encode(record, where=f'record {index}')
  if timing is None:
    return line, None
  return line, encode({'index': index, **timing}, where=f'timing {index}')


def decode(line) -> dict:
  """The fields of one line."""
  fields = json.loads(line)
  if not isinstance(fields, dict):
    raise ValueError('not an object')
  return {key: math.inf if value == 'inf' else value for key, value in fields.items()}


def parse(content, path):
  """The objects of a JSON-lines file, and the offsets before the first and after each of them.

  A torn last line is left out; any other damage raises `ValueError` with file and line.
  """
  lines = content.split(b'\n')
  torn = lines.pop()
  objects, ends = [], [0]
  for number, line in enumerate(lines, 1):
    try:
      objects.append(decode(line))
    except ValueError as error:
      if number == len(lines) and not torn:
        break
      hint = ' (a TSV log? `certjax.report.load` reads it)' if b'\t' in line else ''
      raise ValueError(f'{path}:{number}: corrupt line: {error}{hint}') from error
    ends.append(ends[-1] + len(line) + 1)
  return objects, ends


def checked(records, path):
  """The records, if every field is there and indices increase."""
  last = -1
  for number, record in enumerate(records, 2):
    check_fields(record, f'{path}:{number}')
    if record['index'] <= last:
      raise ValueError(f'{path}:{number}: index {record["index"]} after {last}: must increase')
    last = record['index']
  return records


def check_fields(record, where):
  """Raises `ValueError` unless the record has what every record has."""
  if missing := [key for key in _REQUIRED if key not in record]:
    raise ValueError(f'{where}: no field {", ".join(missing)} in {record}')


def is_header(fields):
  """Whether a first line is that of records, of whatever schema."""
  return isinstance(fields.get('schema'), int)


def upgrade(objects, path):
  """(header, records) of a file's objects in the present schema."""
  if not objects or not is_header(objects[0]):
    raise ValueError(f'{path}:1: no header with a "schema": not the records of a certjax run')
  header, records = objects[0], objects[1:]
  while (schema := header['schema']) != SCHEMA:
    if schema not in UPGRADES:
      remedy = 'install a newer certjax' if schema > SCHEMA else 'no upgrade is known'
      raise ValueError(f'{path}:1: schema {schema}, but this certjax reads {SCHEMA}: {remedy}')
    header, records = UPGRADES[schema](header, records)
    header = {**header, 'schema': schema + 1}
  return header, checked(records, path)


def join(header_and_records):
  """The records of several files of one run, by index.

  Args:
    header_and_records: pairs of a file's name and its records.

  Raises:
    ValueError: if two files hold different records of one image.
  """
  joined = {}
  for path, records in header_and_records:
    for record in records:
      known = joined.setdefault(record['index'], record)
      if known != record:
        raise ValueError(f'{path}: index {record["index"]} is {record}, elsewhere {known}')
  return [joined[index] for index in sorted(joined)]


def check_header(new, old, path):
  """Raises `ValueError` that names the keys in which two headers differ."""
  if different := list(differences(new, old)):
    raise ValueError(
      f'{path}: made under another configuration: {"; ".join(different)}. '
      'Use another --out, or the same configuration.'
    )


def differences(new, old, path=''):
  """One phrase for each key path at which two headers differ.

  Args:
    new: the header at hand.
    old: the one that is there.
    path: of keys to both, '' for whole headers.

  Yields:
    str.

  Example:
    >>> list(differences({'noise': {'sigma': 0.5}}, {'noise': {'sigma': 0.25}}))
    ['noise.sigma is 0.25 there and 0.5 here']
  """
  if isinstance(new, dict) and isinstance(old, dict):
    for key in sorted(new.keys() | old.keys()):
      values = new.get(key, _ABSENT), old.get(key, _ABSENT)
      yield from differences(*values, f'{path}.{key}' if path else key)
  elif new != old:
    old, new = ('absent' if v is _ABSENT else repr(v) for v in (old, new))
    yield f'{path} is {old} there and {new} here'
