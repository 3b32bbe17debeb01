"""Append-only records of a certification run: what was proved, image by image.

A run is a directory. `records.jsonl` opens with the header (all that the proofs depend on) and
holds one line per image, in index order, of deterministic fields only: two runs under one header
give the same bytes however often they were stopped, and into however many shards they were split.
`timing.jsonl` beside it holds what differs (seconds, host, device). JSON only: the field's TSV is
`report`'s. `writer` writes under a lock, to files that grow or, where they cannot, to segments;
`read` joins whatever lies there, and `problems` says what is missing.
"""

from certjax.records._append import RECORDS, TIMING, append, start
from certjax.records._fingerprint import fingerprint
from certjax.records._lines import SCHEMA, differences
from certjax.records._place import locate
from certjax.records._read import exists, merge, problems, read, read_timing, write_merged
from certjax.records._writer import Writer, writer

__all__ = [
  'RECORDS',
  'SCHEMA',
  'TIMING',
  'Writer',
  'append',
  'differences',
  'exists',
  'fingerprint',
  'locate',
  'merge',
  'problems',
  'read',
  'read_timing',
  'start',
  'write_merged',
  'writer',
]
