"""Segments: files written once and whole, a journal before them, and a store without appending."""

import json
import os
import pathlib

import pytest
from etils import epath
from etils.epath import gpath, testing

from certjax import records
from certjax.records import _lock, _segments

SEGMENT = 'records-00000-of-00001.segment-{:06}.jsonl'


def open_segments(directory, run, **options):
  return records.writer(directory, run.header, **{'store': 'segments', **options})


def sizes(directory):
  """How many records each segment holds."""
  return [path.read_bytes().count(b'\n') - 1 for path in sorted(directory.glob('records-*.seg*'))]


def journals(cache):
  return list(cache.rglob('*.records.jsonl'))


def test_a_segment_is_closed_by_number_or_after_a_minute(tmp_path, cache, run, monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(_segments, '_now', lambda: clock[0])
  with open_segments(tmp_path, run, segment_images=4) as open_run:
    assert sizes(tmp_path) == [0]  # The header: the shard has begun.
    for index in range(9):
      open_run.append(run.record(index), run.timing(index))
    assert sizes(tmp_path) == [0, 4, 4]
    clock[0] = 59.0
    open_run.append(run.record(9), run.timing(9))
    assert sizes(tmp_path) == [0, 4, 4]
    clock[0] = 60.0
    open_run.append(run.record(10), run.timing(10))
    assert sizes(tmp_path) == [0, 4, 4, 3]
    assert journals(cache) == []
    open_run.append(run.record(11), run.timing(11))
    (journal,) = journals(cache)
    assert journal.read_bytes().count(b'\n') == 2
  assert sizes(tmp_path) == [0, 4, 4, 3, 1] and journals(cache) == []
  segment = json.loads((tmp_path / SEGMENT.format(3)).read_text().splitlines()[0])
  assert segment == {**run.header, 'schema': 1, 'segment': {'number': 3, 'num_records': 3}}


class _Killed(BaseException):
  pass


def killed_after(directory, run, indices, monkeypatch, before=None):
  """A run that dies without closing: what it appended is in its journal alone."""
  with monkeypatch.context() as patch, pytest.raises(_Killed):
    with open_segments(directory, run) as open_run:
      for index in indices:
        open_run.append(run.record(index), run.timing(index))

      def dead(*arguments):
        raise _Killed

      patch.setattr(_segments, '_write_segment', dead)
      raise _Killed


def test_the_journal_keeps_what_no_segment_holds(tmp_path, cache, run, monkeypatch):
  killed_after(tmp_path, run, range(7), monkeypatch)
  assert sizes(tmp_path) == [0] and len(journals(cache)) == 1
  with open_segments(tmp_path, run) as open_run:
    assert open_run.finished == [run.record(index) for index in range(7)]
    assert sizes(tmp_path) == [0, 7]  # Closed at once: another machine may resume next time.
  assert records.read(tmp_path)[1] == open_run.finished
  assert records.read_timing(tmp_path)[6] == {'index': 6, **run.timing(6)}


def test_killed_between_the_segment_and_the_journal_s_end(tmp_path, cache, run, monkeypatch):
  killed_after(tmp_path, run, range(3), monkeypatch)
  (journal,) = journals(cache)
  kept = journal.read_bytes()
  with open_segments(tmp_path, run):
    pass
  journal.write_bytes(kept)
  with open_segments(tmp_path, run) as open_run:
    assert len(open_run.finished) == 3
  assert sizes(tmp_path) == [0, 3] and journals(cache) == []  # Nothing is written twice.
  lines = kept.splitlines(keepends=True)
  journal.write_bytes(lines[0] + lines[1].replace(b'"label": 0', b'"label": 5'))
  with pytest.raises(ValueError, match=r"index 0 is .*'label': 5.*elsewhere"):
    with open_segments(tmp_path, run):
      pass


def test_a_torn_journal_is_mended(tmp_path, cache, run, monkeypatch):
  killed_after(tmp_path, run, range(3), monkeypatch)
  (journal,) = journals(cache)
  journal.write_bytes(journal.read_bytes()[:-5])
  with open_segments(tmp_path, run) as open_run:
    assert [record['index'] for record in open_run.finished] == [0, 1]


def test_segments_that_are_not_whole_are_named_and_written_anew(tmp_path, run):
  with open_segments(tmp_path, run, segment_images=5) as open_run:
    for index in range(20):
      open_run.append(run.record(index))
  path = tmp_path / SEGMENT.format(2)
  content = path.read_bytes()
  lines = content.splitlines(keepends=True)
  for torn in (content[:-1], b''.join(lines[:-1]), lines[0][:9], b'', b'\0' * 50):
    path.write_bytes(torn)
    problems = records.problems(tmp_path)
    assert any(f'{path.name} is left out, since it' in problem for problem in problems), torn
    assert any('15 of 20 images' in problem for problem in problems)
    assert [record['index'] for record in records.read(tmp_path)[1]] == [*range(5), *range(10, 20)]
    with pytest.raises(ValueError, match='incomplete'):
      records.write_merged(tmp_path)
  with open_segments(tmp_path, run) as open_run:
    assert not path.exists() and len(open_run.finished) == 15
    for index in range(5, 10):
      open_run.append(run.record(index))
  assert records.problems(tmp_path) == []
  assert [record['index'] for record in records.read(tmp_path)[1]] == list(range(20))


def test_a_corrupt_segment_is_an_error(tmp_path, run):
  with open_segments(tmp_path, run) as open_run:
    for index in range(3):
      open_run.append(run.record(index))
  path = tmp_path / SEGMENT.format(1)
  path.write_text(path.read_text().replace('"label": 1', '"label" 1'))
  with pytest.raises(ValueError, match=r'segment-000001\.jsonl:3: corrupt line'):
    records.read(tmp_path)


def test_another_machine_waits_for_the_lease(tmp_path, run, monkeypatch, tmp_path_factory):
  with open_segments(tmp_path, run):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('elsewhere')))
    with pytest.raises(OSError, match='is writing here, heard of 0 s ago.*5 minutes'):
      with open_segments(tmp_path, run):
        pass
    now = _lock._now()
    monkeypatch.setattr(_lock, '_now', lambda: now + 301)
    with open_segments(tmp_path, run) as other:
      other.append(run.record(0))
  assert sizes(tmp_path) == [0, 1]


def test_a_writer_whose_lease_was_taken_closes_no_segment(tmp_path, run):
  (lease,) = [tmp_path / '.records-00000-of-00001.lease']
  with pytest.raises(OSError, match='taken over by process 7 on b .*this run stops'):
    with open_segments(tmp_path, run, segment_images=2) as open_run:
      open_run.append(run.record(0))
      lease.write_text(json.dumps({'token': 'x', 'host': 'b', 'pid': 7, 'time': _lock._now()}))
      open_run.append(run.record(1))
  assert sizes(tmp_path) == [0]


def test_a_file_appears_whole_or_not_at_all(tmp_path, run, monkeypatch):
  def killed(source, target):
    assert pathlib.Path(source).stat().st_size > 0
    raise _Killed

  with open_segments(tmp_path, run) as open_run:
    for index in range(20):
      open_run.append(run.record(index))
  monkeypatch.setattr(os, 'replace', killed)
  before = sorted(path.name for path in tmp_path.iterdir())
  with pytest.raises(_Killed):
    records.write_merged(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == before


# ----------------------------------------------------------------- a store behind epath


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """gs:// as a folder that only epath knows, where nothing can be appended to or renamed."""
  monkeypatch.setattr(gpath, '_is_tf_installed', lambda: False)
  (tmp_path / 'gs' / 'bucket' / 'run').mkdir(parents=True)

  def local(original, path, *arguments, **options):
    assert not {'a', '+'} & set(arguments[0] if arguments else '')
    return original(str(path).replace('gs://', f'{tmp_path}/gs/'), *arguments, **options)

  def refuse(original, *arguments, **options):
    raise AssertionError('an object store cannot do that')

  with testing.mock_epath(
    open=local, listdir=local, exists=local, isdir=local, remove=local,
    rename=refuse, replace=refuse, mkdir=refuse, makedirs=refuse,
  ):  # fmt: skip
    yield 'gs://bucket/run'


def test_a_remote_run(bucket, tmp_path, run):
  local = tmp_path / 'gs' / 'bucket' / 'run'
  for i in range(2):
    options = {'shard': (i, 2), 'num_images': 10, 'segment_images': 3}
    with records.writer(bucket, run.header, **options) as open_run:
      for index in range(i, 20, 2):
        open_run.append(run.record(index), run.timing(index))
  assert len(list(local.glob('records-00001-of-00002.segment-*'))) == 5
  through_pathlib = pathlib.Path(bucket)  # What an argument parser makes of it.
  assert str(through_pathlib) == 'gs:/bucket/run'
  for path in (bucket, through_pathlib, epath.Path(bucket)):
    assert records.read(path) == ({**run.header, 'schema': 1}, [run.record(i) for i in range(20)])
    assert records.problems(path) == [] and records.exists(path)
  assert len(records.read_timing(bucket)) == 20
  assert str(records.write_merged(bucket)) == 'gs://bucket/run/records.jsonl'
  records.start(tmp_path / 'whole', run.header)
  for index in range(20):
    records.append(tmp_path / 'whole', run.record(index))
  assert (local / 'records.jsonl').read_bytes() == (tmp_path / 'whole/records.jsonl').read_bytes()
  assert records.merge([bucket, tmp_path / 'whole'])[1] == records.read(bucket)[1]


def test_a_remote_store_that_cannot_be_reached(monkeypatch, run):
  class Unauthorized(Exception):
    pass

  def refuse(original, *arguments, **options):
    raise Unauthorized('no credentials\nfor this bucket')

  with testing.mock_epath(open=refuse, listdir=refuse, makedirs=refuse):
    for attempt in (
      lambda: records.writer('gs://bucket/run', run.header).__enter__(),
      lambda: records.read('gs://bucket/run'),
    ):
      with pytest.raises(OSError, match='no credentials for this bucket') as error:
        attempt()
      assert '\n' not in str(error.value)
