"""The one door to writing a run: lock, header check, mending, then one append an image."""

import os
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from certjax.records import _files, _lines
from certjax.records._append import RECORDS, TIMING, append_store
from certjax.records._lock import held, lease
from certjax.records._place import is_remote, locate, names, reaching, write_whole, writing
from certjax.records._segments import journal_directory, segment_store

_STORES = ('append', 'segments')


class Writer(NamedTuple):
  """An open shard of a run.

  Attributes:
    finished: list of the records that were there, in index order; a segment that was lost may have
      left gaps.
    append: `append(record, timing=None)`, see `records.append`; indices increase.
  """

  finished: list
  append: Callable


@contextmanager
def writer(directory, header, *, shard=(0, 1), num_images=None, store=None, segment_images=100):
  """Opens one shard of a run for writing; a shard alone in its run is the run.

  Takes the shard's lock, checks the header, cuts off torn lines. Shards of one run may be written
  side by side. What is appended survives the death of the process; a crash of the machine loses at
  most what was appended within a second (store 'append') or a minute (store 'segments') after the
  last sync. A shard of which only the header was written may be begun anew under another one.

  Args:
    directory: path of the run, local or remote (gs://, ... through `etils.epath`); created where
      missing.
    header: dict of JSON values, of the whole run: everything that the records depend on. Its
      `num_images`, if any, is that of the whole run.
    shard: (i, n), the i-th of n, from 0.
    num_images: images of this shard; needed where n > 1.
    store: 'append' (files that grow) or 'segments' (files written once and whole, where appending
      is impossible or, as on a mounted drive, unreliable); by default 'segments' for remote paths.
    segment_images: a segment is closed when it has so many records, or a minute after the last was.

  Yields:
    A `Writer`.

  Raises:
    ValueError: if the shard, or another one beside it, was written under another header, with
      another count of shards, or by the other store; if a line before the last is corrupt.
    OSError: if another process writes the shard, or the directory cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   with writer(folder, {'norm': 'l2'}) as out:
    ...     out.append({'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   with writer(folder, {'norm': 'l2'}) as again:
    ...     print([record['index'] for record in again.finished])
    [0]
  """
  directory, shard = locate(directory), tuple(shard)
  store = store or ('segments' if is_remote(directory) else 'append')
  _check_arguments(directory, header, shard, num_images, store, segment_images)
  own = dict(header)
  if shard[1] > 1:
    own['shard'] = {'index': shard[0], 'count': shard[1], 'num_images': num_images}
  if not is_remote(directory):  # Object stores have no directories.
    with writing(directory):
      directory.mkdir(parents=True, exist_ok=True)
  _check_siblings(directory, header, shard, store)
  open_store = _append if store == 'append' else _segments
  with ExitStack() as stack:
    opened, check = open_store(stack, directory, own, shard, segment_images)

    def append(record, timing=None):
      check()
      opened.append(record, timing)

    try:
      yield Writer(opened.finished, append)
    except BaseException:
      with suppress(OSError):  # The first error is the one to tell of.
        opened.close()
      raise
    opened.close()


def _append(stack, directory, header, shard, segment_images):
  del segment_images
  files = [RECORDS, TIMING]
  if shard[1] > 1:
    files = [f'{_files.stem(kind, *shard)}.jsonl' for kind in ('records', 'timing')]
  check = stack.enter_context(held(directory / f'.{files[0].removesuffix(".jsonl")}.lock'))
  stored, timed = (directory / name for name in files)
  return append_store(stored, timed, header), check


def _segments(stack, directory, header, shard, segment_images):
  """The journal's lock tells at once whether a holder on this machine is alive; the lease beside
  the segments, which bears the journal's token, keeps other machines out."""
  stem = _files.stem('records', *shard)
  journal = journal_directory(directory, stem)
  with writing(journal):
    journal.mkdir(parents=True, exist_ok=True)
  stack.enter_context(held(journal / 'lock'))
  token = journal / 'token'
  if not token.exists():
    write_whole(token, os.urandom(16).hex().encode())
  check = stack.enter_context(lease(directory / f'.{stem}.lease', token.read_text()))
  opened = segment_store(
    directory, shard, header, journal, segment_images=segment_images, check=check
  )
  return opened, check


def _check_arguments(directory, header, shard, num_images, store, segment_images):
  _files.check_shard(shard, num_images)
  if store not in _STORES:
    raise ValueError(f'`store`={store!r}: must be one of {", ".join(_STORES)}')
  if store == 'append' and is_remote(directory):
    raise ValueError(f"`store`='append' needs a local directory, got {directory}: use 'segments'")
  if segment_images < 1:
    raise ValueError(f'`segment_images`={segment_images}: must be 1 or more')
  if reserved := [key for key in _files.OWN_KEYS if key in header]:
    raise ValueError(
      f'`header` has the key {", ".join(reserved)}, which the writer sets: rename it'
    )


def _check_siblings(directory, header, shard, store):
  """Raises if files that hold records cannot be of the same run, shard count and store.

  A merged `records.jsonl` may lie beside its shards. Of each shard the last file is looked at.
  """
  ours = (shard[1] if shard[1] > 1 or store == 'segments' else 0, store == 'segments')
  parsed = ((name, _files.parse_name(name)) for name in names(directory))
  present = [(name, parts) for name, parts in parsed if parts and parts.kind == 'records']
  kinds = {_kind(parts) for _, parts in present}
  last = {(parts.index, _kind(parts)): (name, parts) for name, parts in present}
  new = _lines.decode(_lines.encode_header(header))
  for name, parts in last.values():
    merged = name == RECORDS and ours[0] and ours in kinds
    mine = (parts.index, _kind(parts)) == (shard[0], ours)  # Checked when it is opened.
    if merged or mine or len(first := _first_lines(directory / name)) < 2:
      continue
    if _kind(parts) != ours:
      raise ValueError(
        f'{directory / name}: written as {_said(parts)}; continue so, or use another --out'
      )
    _lines.check_header(new, _files.own(first[0]), directory / name)


def _kind(name):
  """What the files of one run share: the count of shards, and whether they are segments."""
  return name.count, name.segment is not None


def _said(name):
  parts = f'{name.count} shards' if name.count > 1 else 'one file'
  return f"{parts} in segments (`store`='segments')" if name.segment is not None else parts


def _first_lines(path):
  """The header and the first record, as far as they are there and whole."""
  with reaching(path):
    try:
      with path.open('rb') as file:
        lines = [file.readline(), file.readline()]
    except FileNotFoundError:
      return []
  try:
    return [_lines.decode(line) for line in lines if line.endswith(b'\n')]
  except ValueError:
    return []
