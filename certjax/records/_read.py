"""Reading a run, however many files it lies in, and saying what of it is missing.

A directory's files are one run where their own headers agree. Files under another header are left
out, and named by `problems`: the header with the most records is the run's.
"""

import errno

from certjax.records import _files, _lines
from certjax.records._append import RECORDS, TIMING
from certjax.records._place import is_remote, locate, names, read_all, write_whole


def exists(directory):
  """Whether a directory, local or remote, holds records.

  Args:
    directory: of a run.

  Returns:
    A bool.

  Example:
    >>> exists('nowhere')
    False
  """
  return bool(_record_names(locate(directory)))


def read(path):
  """Reads a run: (header, records).

  A directory's shards and segments are joined. A torn last line is ignored (the run is still going
  on, or will resume), and so is a segment that is not whole; any other damage is an error. Runs of
  older schemas are upgraded in memory. No lock is needed.

  Args:
    path: a run's directory, local or remote, or one file of records.

  Returns:
    The header without what is a shard's own, and a list of records in index order, infinite values
    as floats.

  Raises:
    ValueError: naming file and line, if a line before the last is corrupt, if indices do not
      increase, if two files hold different records of one image, or if the schema is newer than
      this certjax.
    OSError: if there are no records.

  Example:
    >>> import tempfile
    >>> from certjax.records import writer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   with writer(folder, {'norm': 'l2'}) as out:
    ...     out.append({'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   read(folder)
    ({'norm': 'l2', 'schema': 1}, [{'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5}])
  """
  path = locate(path)
  if _is_file(path):
    header, records = _files.read_file(*read_all([path]), path)
    return _files.own(header), records
  return _joined(_main(_contents(path)[0], path))


def read_timing(path):
  """Reads the timing sidecars of a run: a dict from index to its fields, empty where there are none.

  Args:
    path: a run's directory, local or remote, or one file of records.

  Returns:
    A dict, index -> dict of its fields.

  Raises:
    ValueError: if a line before the last is corrupt.

  Example:
    >>> import tempfile
    >>> from certjax.records import writer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   with writer(folder, {}) as out:
    ...     out.append({'index': 7, 'label': 3, 'predict': 3, 'radius': 0.5}, {'seconds': 0.25})
    ...   read_timing(folder)[7]['seconds']
    0.25
  """
  path = locate(path)
  if _is_file(path) and path.name != RECORDS:
    directory, files = path.parent, [path.name.replace('records', 'timing', 1)]
  else:
    directory = path.parent if _is_file(path) else path
    parsed = ((name, _files.parse_name(name)) for name in names(directory))
    files = [name for name, parts in parsed if parts and parts.kind == 'timing']
  present = set(names(directory))
  # The unsharded pair last: it is the run's own.
  paths = [directory / name for name in sorted(files, key=TIMING.__eq__) if name in present]
  timing = {}
  for path, content in zip(paths, read_all(paths), strict=True):
    timing |= {entry['index']: entry for entry in _lines.parse(content, path)[0]}
  return timing


def merge(paths):
  """Joins runs of parts of a data set: (header, records in index order).

  Args:
    paths: directories or files of records with equal headers.

  Returns:
    The header, and a list of records.

  Raises:
    ValueError: if headers differ, or two runs hold different records of one image.

  Example:
    >>> import os, tempfile
    >>> from certjax.records import writer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   paths = [os.path.join(folder, part) for part in ('first', 'second')]
    ...   for index, path in enumerate(paths):
    ...     with writer(path, {'norm': 'l2'}) as out:
    ...       out.append({'index': index, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   [record['index'] for record in merge(paths)[1]]
    [0, 1]
  """
  header, parts = None, []
  for path in paths:
    other, records = read(path)
    header = other if header is None else header
    _lines.check_header(header, other, path)
    parts.append((path, records))
  if header is None:
    raise ValueError('`paths` is empty: nothing to merge')
  return header, _lines.join(parts)


def problems(directory):
  """What a reader of a run should know: one line each, none where the run is complete.

  Named are shards that are missing or hold fewer records than their header's `num_images`, segments
  that are not whole, files under another header, mixtures of shard counts or of sharded and
  unsharded files, and a run with fewer records than its header's `num_images`.

  Args:
    directory: a run's directory, local or remote.

  Returns:
    A list of strings that begin with the directory.

  Raises:
    ValueError: as `read`.
    OSError: if there are no records.

  Example:
    >>> import tempfile
    >>> from certjax.records import writer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   with writer(folder, {'num_images': 2}) as out:
    ...     out.append({'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   [problem.removeprefix(folder) for problem in problems(folder)]
    [': 1 of 2 images are finished']
  """
  directory = locate(directory)
  contents, found = _contents(directory)
  main = _main(contents, directory)
  header, records = _joined(main)
  counts = sorted({content.count for content in main if content.count})
  for other in contents:
    if other.header != header and (other.records or other.count in counts):
      different = '; '.join(_lines.differences(header, other.header))
      found.append(f'{other.name} is left out, since it was made under another header: {different}')
  if len(counts) > 1:
    found.append(f'shards of {" and of ".join(map(str, counts))} lie in one directory')
  unsharded = [content.records for content in main if not content.count and content.records]
  if counts and unsharded and unsharded != [records]:
    found.append(f'{RECORDS} lies beside shards and holds other images')
  short = [problem for count in counts for problem in _shard_problems(main, count)]
  total = header.get('num_images')
  if not short and isinstance(total, int) and len(records) != total:
    short = [f'{len(records)} of {total} images are finished']
  found += short
  return [f'{directory}: {problem}' for problem in found]


def write_merged(directory):
  """Writes the `records.jsonl` of a run that lies in shards or segments, which stay.

  It has the bytes that one process would have written, and appears whole or not at all.

  Args:
    directory: a run's directory, local or remote.

  Returns:
    Path of `records.jsonl`.

  Raises:
    ValueError: if the run is not complete (see `problems`).
    OSError: if the file cannot be written.

  Example:
    >>> import tempfile
    >>> from certjax.records import writer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   for i in range(2):
    ...     with writer(folder, {'num_images': 2}, shard=(i, 2), num_images=1) as out:
    ...       out.append({'index': i, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   write_merged(folder).name
    'records.jsonl'
  """
  directory = locate(directory)
  path = directory / RECORDS
  if _record_names(directory) == [RECORDS]:
    return path
  if found := problems(directory):
    raise ValueError(f'cannot merge an incomplete run: {"; ".join(found)}')
  header, records = read(directory)
  lines = [_lines.encode_header(header)]
  lines += [_lines.encode_record(record, None)[0] for record in records]
  content = b''.join(lines)
  if RECORDS not in names(directory) or path.read_bytes() != content:
    write_whole(path, content)
  return path


def _is_file(path):
  """Whether a path names a file; of a remote one the name tells, which costs no request."""
  return path.name.endswith('.jsonl') if is_remote(path) else path.is_file()


def _record_names(directory):
  """The names of a directory's files of records."""
  parsed = ((name, _files.parse_name(name)) for name in names(directory))
  return [name for name, parts in parsed if parts and parts.kind == 'records']


def _contents(directory):
  """(`Content` of each file of records, problems with those that are not whole)."""
  found, contents, files = [], [], _record_names(directory)
  for name, content in zip(files, read_all([directory / name for name in files]), strict=True):
    if len(files) > 1 and b'\n' not in content:
      found.append(f'{name} is left out, since it has not even a header')
    elif read := _files.read_content(content, directory / name, _files.parse_name(name)):
      contents.append(read)
    else:
      found.append(f'{name} is left out, since it is not whole (half written, or half copied)')
  return contents, found


def _main(contents, directory):
  """The contents under the header that most images have."""
  if not contents:
    raise FileNotFoundError(errno.ENOENT, 'no records', str(directory / RECORDS))
  groups = []
  for content in contents:
    for group in groups:
      if group[0].header == content.header:
        group.append(content)
        break
    else:
      groups.append([content])
  return max(groups, key=lambda group: len(_joined(group)[1]))


def _joined(contents):
  """(header, records) of files under one header."""
  records = _lines.join((content.name, content.records) for content in contents)
  return contents[0].header, records


def _shard_problems(main, count):
  """What the shards i/count lack."""
  for index in range(count):
    stem = _files.stem('records', index, count)
    files = [content for content in main if (content.index, content.count) == (index, count)]
    if not files:
      yield f'shard {index}/{count} is missing ({stem})'
      continue
    expected = {content.num_images for content in files} - {None}
    if len(expected) > 1:
      yield f'shard {index}/{count} is said to have {" and ".join(map(str, sorted(expected)))} images'
    elif expected and (num_records := len(_joined(files)[1])) not in expected:
      yield f'shard {index}/{count} holds {num_records} of {expected.pop()} images ({stem})'
