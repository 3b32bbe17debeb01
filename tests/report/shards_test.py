"""Reports of runs that lie in shards: merged when complete, told of when not."""

import numpy as np
import pytest

from certjax import records, report

HEADER = {'norm': 'l2', 'unit': 'pixel value', 'alpha': 0.001, 'num_images': 12}


def write_shard(directory, index, indices, num_images=6, **options):
  shard = {'shard': (index, 2), 'num_images': num_images}
  with records.writer(directory, HEADER, **shard, **options) as run:
    for i in indices:
      record = {'index': i, 'label': i % 3, 'predict': i % 3, 'radius': i / 7}
      run.append(record, {'seconds': i / 2})


@pytest.fixture(params=['append', 'segments'])
def store(request, tmp_path_factory, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
  return request.param


def test_shards_load_as_one_run(tmp_path, store):
  for index in range(2):
    write_shard(tmp_path / 'mine', index, range(index, 12, 2), store=store)
  run = report.load(tmp_path / 'mine')
  assert run.name == 'mine' and run.problems == () and run.header == {**HEADER, 'schema': 1}
  np.testing.assert_array_equal(run.index, range(12))
  np.testing.assert_array_equal(run.certificate.radius, [i / 7 for i in range(12)])
  np.testing.assert_array_equal(run.seconds, np.arange(12) / 2)


def test_the_report_of_complete_shards_merges_them(command, tmp_path, store):
  for index in range(2):
    write_shard(tmp_path / 'mine', index, range(index, 12, 2), store=store)
  before = {path.name for path in (tmp_path / 'mine').glob('records-*')}
  done = command('report', tmp_path / 'mine')
  assert done.code == 0 and done.err == '' and '| mine' in done.out
  records.start(tmp_path / 'whole', HEADER)
  for i in range(12):
    record = {'index': i, 'label': i % 3, 'predict': i % 3, 'radius': i / 7}
    records.append(tmp_path / 'whole', record)
  merged = (tmp_path / 'mine' / 'records.jsonl').read_bytes()
  assert merged == (tmp_path / 'whole' / 'records.jsonl').read_bytes()
  assert before == {path.name for path in (tmp_path / 'mine').glob('records-*')}
  again = command('report', tmp_path / 'mine')
  assert again.code == 0 and again.err == '' and again.out == done.out


def test_an_incomplete_run_is_told_of_and_reported(command, tmp_path):
  out = tmp_path / 'mine'
  write_shard(out, 0, range(0, 8, 2))
  done = command('report', out)
  assert done.code == 0 and '| mine' in done.out
  assert done.err.splitlines() == [
    f'certjax: warning: {out}: shard 0/2 holds 4 of 6 images (records-00000-of-00002)',
    f'certjax: warning: {out}: shard 1/2 is missing (records-00001-of-00002)',
  ]
  assert not (out / 'records.jsonl').exists()
  assert len(report.load(out).problems) == 2
  of_a_file = command('report', out / 'records-00000-of-00002.jsonl')
  assert of_a_file.code == 0 and of_a_file.err == ''


def test_what_cannot_be_merged_is_still_reported(command, tmp_path, monkeypatch):
  def full(path):
    raise OSError(28, 'cannot write: No space left on device', str(path))

  for index in range(2):
    write_shard(tmp_path / 'mine', index, range(index, 12, 2))
  monkeypatch.setattr(records, 'write_merged', full)
  done = command('report', tmp_path / 'mine', '--out', tmp_path / 'out')
  assert done.code == 0 and 'not merged: cannot write: No space left' in done.err
  assert (tmp_path / 'out' / 'table.md').exists()


def test_a_remote_report_needs_a_local_directory(command, monkeypatch, tmp_path):
  testing = pytest.importorskip('etils.epath.testing')
  monkeypatch.chdir(tmp_path)
  write_shard(tmp_path / 'gs:' / 'bucket' / 'mine', 0, range(3))
  with testing.mock_epath():
    done = command('report', 'gs://bucket/mine')
    assert done.code == 2 and '`--out`' in done.err and 'gs://bucket/mine' in done.err
    done = command('report', 'gs://bucket/mine', '--out', tmp_path / 'out')
    assert done.code == 0 and '| mine' in done.out and 'shard 1/2 is missing' in done.err
