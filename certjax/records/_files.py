"""What the files of a run are called, and what one of them holds.

    records.jsonl                                      a whole run, or all its shards merged
    records-00001-of-00004.jsonl                       shard 1 of 4
    records-00001-of-00004.segment-000002.jsonl        a part of it, closed for good

The header of a shard says `shard`, that of a segment `segment` too, beside the run's own header.
"""

import re
from typing import NamedTuple

from certjax.records import _lines
from certjax.records._append import RECORDS, TIMING

_NAME = re.compile(r'(records|timing)-(\d{5})-of-(\d{5})(?:\.segment-(\d{6}))?\.jsonl')
_MAX_SHARDS = 10**5 - 1
OWN_KEYS = ('shard', 'segment')  # Of a file, not of the run.


class Name(NamedTuple):
  """A file's name, read: `kind` 'records' or 'timing', `count` 0 for the unsharded pair,
  `segment` None where there is none."""

  kind: str
  index: int
  count: int
  segment: int | None


class Content(NamedTuple):
  """What one file of records holds: the run's own header, the shard's `num_images` or None."""

  name: str
  index: int
  count: int
  header: dict
  num_images: int | None
  records: list


def parse_name(name):
  """The `Name`, None where the file is none of a run."""
  if name in (RECORDS, TIMING):
    return Name(name.removesuffix('.jsonl'), 0, 0, None)
  if match := _NAME.fullmatch(name):
    kind, index, count, segment = match.groups()
    return Name(kind, int(index), int(count), None if segment is None else int(segment))
  return None


def stem(kind, index, count):
  """The name without segment and suffix.

  Example:
    >>> stem('records', 1, 4)
    'records-00001-of-00004'
  """
  return f'{kind}-{index:05}-of-{count:05}'


def check_shard(shard, num_images):
  """Raises `ValueError` unless `shard` is one of `count` and says how many images it has."""
  index, count = shard
  if not 0 <= index < count <= _MAX_SHARDS:
    raise ValueError(
      f'`shard`={index}/{count}: must be i/n with 0 <= i < n <= {_MAX_SHARDS}; the first is 0/n'
    )
  if count > 1 and (num_images is None or num_images < 0):
    raise ValueError(
      f'`num_images`={num_images}: must say how many images shard {index}/{count} has'
    )


def read_file(content, path, *, segment=False):
  """(header, records) of one file in the present schema; None if it is a segment, and not whole."""
  if segment and not _is_whole(content):
    return None
  return _lines.upgrade(_lines.parse(content, path)[0], path)


def read_content(content, path, name):
  """The `Content` of a file of records, None if it is a segment and not whole.

  Args:
    content: its bytes.
    path: its path.
    name: its `Name`.
  """
  read = read_file(content, path, segment=name.segment is not None)
  if read is None:
    return None
  header, records = read
  shard = header.get('shard') or {'index': 0, 'count': name.count, 'num_images': None}
  if (shard['index'], shard['count']) != (name.index, name.count):
    raise ValueError(
      f'{path}:1: the header is that of shard {shard["index"]}/{shard["count"]}: rename the file back'
    )
  return Content(path.name, name.index, name.count, own(header), shard['num_images'], records)


def own(header):
  """The header of the run, without what is the file's."""
  return {key: value for key, value in header.items() if key not in OWN_KEYS}


def _is_whole(content):
  """Whether a segment has as many line breaks as its header says."""
  try:
    segment = _lines.decode(content.split(b'\n', 1)[0])['segment']
    return content.count(b'\n') == 1 + segment['num_records']
  except (ValueError, KeyError):
    return False
