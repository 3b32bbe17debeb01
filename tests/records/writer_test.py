"""`records.writer`: shards, merging, locks, the store that appends."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from certjax import records
from certjax.records import _append, _lock

STORES = ('append', 'segments')


def write(directory, run, indices, *, header=None, **options):
  """Writes those of `indices` that are not there; returns how many were."""
  with records.writer(directory, header or run.header, **options) as open_run:
    finished = {record['index'] for record in open_run.finished}
    for index in indices:
      if index not in finished:
        open_run.append(run.record(index), run.timing(index))
  return len(finished)


def write_shards(directory, run, splits, **options):
  for i, indices in enumerate(splits):
    shard = (i, len(splits))
    write(directory, run, indices, shard=shard, num_images=len(indices), **options)


def whole(tmp_path, run):
  """The bytes of the run by one process through `start` and `append`."""
  records.start(tmp_path / 'whole', run.header)
  for index in range(20):
    records.append(tmp_path / 'whole', run.record(index))
  return (tmp_path / 'whole' / 'records.jsonl').read_bytes()


SPLITS = {
  'one': [range(20)],
  'halves': [range(10), range(10, 20)],
  'strided': [range(i, 20, 3) for i in range(3)],
  'one image each': [[i] for i in range(20)],
  'two empty': [range(0, 7), [], range(7, 20), []],
}


@pytest.mark.parametrize('store', STORES)
@pytest.mark.parametrize('split', SPLITS)
def test_every_split_gives_the_bytes_of_one_process(tmp_path, run, split, store):
  out = tmp_path / 'out'
  write_shards(out, run, SPLITS[split], store=store, segment_images=3)
  assert records.problems(out) == []
  assert records.read(out) == ({**run.header, 'schema': 1}, [run.record(i) for i in range(20)])
  assert records.write_merged(out) == out / 'records.jsonl'
  assert (out / 'records.jsonl').read_bytes() == whole(tmp_path, run)
  assert records.problems(out) == []  # The merged file beside its shards is none.
  assert records.read(out)[1] == records.read(out / 'records.jsonl')[1]
  assert records.read_timing(out) == {i: {'index': i, **run.timing(i)} for i in range(20)}
  assert not list(out.glob('.*.part')) and not list(out.glob('.*.lease'))
  write_shards(out, run, SPLITS[split], store=store)  # Nothing is left to do, and nothing refuses.


def test_a_shard_is_the_run_s_header_and_its_own(tmp_path, run):
  write(tmp_path, run, [1, 3], shard=(1, 2), num_images=2)
  first = (tmp_path / 'records-00001-of-00002.jsonl').read_text().splitlines()[0]
  assert json.loads(first) == {
    **run.header,
    'schema': 1,
    'shard': {'index': 1, 'count': 2, 'num_images': 2},
  }
  assert records.read(tmp_path / 'records-00001-of-00002.jsonl')[0] == {**run.header, 'schema': 1}
  timing = records.read_timing(tmp_path / 'records-00001-of-00002.jsonl')
  assert timing[3] == {'index': 3, **run.timing(3)}


def test_one_of_two_shards_dies_and_is_resumed(tmp_path, run):
  write(tmp_path, run, range(10), shard=(0, 2), num_images=10)
  assert records.problems(tmp_path) == [
    f'{tmp_path}: shard 1/2 is missing (records-00001-of-00002)'
  ]
  write(tmp_path, run, range(10, 14), shard=(1, 2), num_images=10)
  with open(tmp_path / 'records-00001-of-00002.jsonl', 'ab') as file:
    file.write(b'{"index": 14, "la')
  (problem,) = records.problems(tmp_path)
  assert 'shard 1/2 holds 4 of 10 images' in problem
  assert len(records.read(tmp_path)[1]) == 14
  with pytest.raises(ValueError, match='incomplete run: .*shard 1/2 holds 4 of 10'):
    records.write_merged(tmp_path)
  assert not (tmp_path / 'records.jsonl').exists()
  assert write(tmp_path, run, range(10, 20), shard=(1, 2), num_images=10) == 4
  assert records.problems(tmp_path) == []


def test_problems_of_mixtures(tmp_path, run):
  write(tmp_path, run, range(10), shard=(0, 2), num_images=10)
  other = {**run.header, 'alpha': 0.01}
  (tmp_path / 'other').mkdir()
  write(tmp_path / 'other', run, [10, 11], shard=(1, 2), num_images=10, header=other)
  name = 'records-00001-of-00002.jsonl'
  (tmp_path / 'other' / name).rename(tmp_path / name)
  left_out, missing = records.problems(tmp_path)
  assert f'{name} is left out' in left_out and 'alpha is 0.01 there and 0.001 here' in left_out
  assert 'shard 1/2 is missing' in missing
  assert len(records.read(tmp_path)[1]) == 10  # The larger part; the other's are not mixed in.

  write(tmp_path / 'b', run, range(10, 20), shard=(1, 4), num_images=10)
  (tmp_path / 'b' / 'records-00001-of-00004.jsonl').rename(
    tmp_path / 'records-00001-of-00004.jsonl'
  )
  assert any('shards of 2 and of 4' in problem for problem in records.problems(tmp_path))
  records.start(tmp_path / 'c', run.header)
  records.append(tmp_path / 'c', run.record(0))
  (tmp_path / 'c' / 'records.jsonl').rename(tmp_path / 'records.jsonl')
  assert any('lies beside shards' in problem for problem in records.problems(tmp_path))
  (tmp_path / 'records-00000-of-00002.jsonl').rename(tmp_path / 'records-00002-of-00004.jsonl')
  with pytest.raises(ValueError, match='header is that of shard 0/2'):
    records.problems(tmp_path)


def test_shards_that_disagree_are_an_error(tmp_path, run):
  write(tmp_path, run, [4], shard=(0, 2), num_images=1)
  with records.writer(tmp_path, run.header, shard=(1, 2), num_images=1) as other:
    other.append({**run.record(4), 'radius': 9.0})
  with pytest.raises(ValueError, match=r'index 4 is .*9\.0.*elsewhere'):
    records.read(tmp_path)


def test_an_unfinished_unsharded_run_is_a_problem(tmp_path, run):
  write(tmp_path, run, range(5))
  assert records.problems(tmp_path) == [f'{tmp_path}: 5 of 20 images are finished']
  with pytest.raises(OSError, match='no records'):
    records.problems(tmp_path / 'nowhere')
  assert records.exists(tmp_path) and not records.exists(tmp_path / 'nowhere')


@pytest.mark.parametrize('store', STORES)
def test_another_header_is_refused_by_its_key(tmp_path, run, store):
  options = {'shard': (0, 2), 'num_images': 10, 'store': store}
  write(tmp_path, run, range(3), **options)
  before = sorted((path.name, path.read_bytes()) for path in tmp_path.glob('records*'))
  other = {**run.header, 'weights_sha256': 'b'}
  for shard in ((0, 2), (1, 2)):  # Also beside a shard of the other run.
    with pytest.raises(ValueError, match='weights_sha256 is absent there and .b. here') as error:
      write(tmp_path, run, [], header=other, **{**options, 'shard': shard})
    assert '\n' not in str(error.value) and 'alpha' not in str(error.value)
  with pytest.raises(ValueError, match='shard.num_images is 10 there and 11 here'):
    write(tmp_path, run, [], **{**options, 'num_images': 11})
  assert sorted((path.name, path.read_bytes()) for path in tmp_path.glob('records*')) == before


@pytest.mark.parametrize('store', STORES)
def test_a_header_alone_may_be_replaced(tmp_path, run, store):
  write(tmp_path, run, [], store=store)
  other = {**run.header, 'alpha': 0.01}
  write(tmp_path, run, range(20), header=other, store=store)
  assert records.read(tmp_path)[0]['alpha'] == 0.01
  assert records.problems(tmp_path) == []


def test_other_counts_and_stores_are_refused(tmp_path, run):
  write(tmp_path / 'sharded', run, [0], shard=(0, 2), num_images=10)
  write(tmp_path / 'plain', run, [0])
  write(tmp_path / 'segments', run, [0], store='segments')
  cases = [
    ('sharded', {}, 'written as 2 shards'),
    ('sharded', {'shard': (0, 4), 'num_images': 5}, 'written as 2 shards'),
    ('sharded', {'shard': (1, 2), 'num_images': 9, 'store': 'segments'}, 'written as 2 shards'),
    ('plain', {'shard': (0, 2), 'num_images': 10}, 'written as one file'),
    ('plain', {'store': 'segments'}, 'written as one file'),
    ('segments', {}, 'one file in segments .*store'),
  ]
  for name, options, said in cases:
    with pytest.raises(ValueError, match=f'{said}.*another --out'):
      write(tmp_path / name, run, [], **options)


def test_arguments(tmp_path, run):
  for options, said in [
    ({'shard': (2, 2), 'num_images': 1}, '`shard`=2/2'),
    ({'shard': (-1, 2), 'num_images': 1}, '`shard`=-1/2'),
    ({'shard': (0, 2)}, '`num_images`=None'),
    ({'store': 'tape'}, "`store`='tape'"),
    ({'segment_images': 0}, '`segment_images`=0'),
    ({'header': {'shard': 1}}, 'key shard'),
  ]:
    with pytest.raises(ValueError, match=said):
      write(tmp_path / 'run', run, [], **options)
  with pytest.raises(ValueError, match="'append' needs a local directory"):
    write('gs://bucket/run', run, [], store='append')
  with pytest.raises(ValueError, match='unknown scheme'):
    write('ftp://bucket/run', run, [])
  assert not (tmp_path / 'run').exists()
  with records.writer(tmp_path, run.header) as open_run:
    open_run.append(run.record(4))
    with pytest.raises(ValueError, match='`index`=4 after 4'):
      open_run.append(run.record(4))


# ----------------------------------------------------------------- synced to the disk


def test_synced_at_most_once_a_second_and_at_the_end(tmp_path, run, monkeypatch):
  clock, synced = [0.0], []
  monkeypatch.setattr(_append, '_now', lambda: clock[0])
  real = os.fsync
  monkeypatch.setattr(os, 'fsync', lambda descriptor: synced.append(clock[0]) or real(descriptor))
  with records.writer(tmp_path, run.header) as open_run:
    synced.clear()
    for index in range(20):
      clock[0] = index / 4
      open_run.append(run.record(index))
    assert synced == [0, 1, 2, 3, 4]
  assert len(synced) == 6  # What was left of the last second.


# ----------------------------------------------------------------- locks


def test_two_live_writers(tmp_path, run):
  with records.writer(tmp_path, run.header, shard=(0, 2), num_images=10):
    with pytest.raises(OSError, match='is writing here') as error:
      write(tmp_path, run, [], shard=(0, 2), num_images=10)
    message = str(error.value)
    assert error.value.errno == errno.EWOULDBLOCK and '\n' not in message
    assert f'process {os.getpid()} on ' in message and 'UTC' in message and '--out' in message
    write(tmp_path, run, range(10, 20), shard=(1, 2), num_images=10)  # The other shard goes on.
    assert len(records.read(tmp_path)[1]) == 10  # Readers need no lock.
  write(tmp_path, run, [], shard=(0, 2), num_images=10)


_HOLDER = """
import sys, time
from certjax import records
from certjax.records import _lock
_lock._SETTLE_SECONDS = 0
if sys.argv[3] == 'lease':
  _lock.fcntl = None
with records.writer(sys.argv[1], {'alpha': 1}, store=sys.argv[2]) as run:
  for index in range(3):
    run.append({'index': index, 'label': 1, 'predict': 1, 'radius': index / 7})
  print('ready', flush=True)
  time.sleep(60)
"""


@pytest.mark.parametrize('store', STORES)
def test_a_dead_holder_never_blocks(tmp_path, store):
  header = {'alpha': 1}
  with _child(_HOLDER, tmp_path, store, 'flock') as child:
    assert child.stdout.readline() == b'ready\n'
    with (
      pytest.raises(OSError, match=f'process {child.pid} on'),
      records.writer(tmp_path, header, store=store),
    ):
      pass
    child.send_signal(signal.SIGKILL)
  with records.writer(tmp_path, header, store=store) as open_run:
    assert [record['index'] for record in open_run.finished] == [0, 1, 2]


def test_without_kernel_locks_a_lease_holds_for_five_minutes(tmp_path, monkeypatch):
  monkeypatch.setattr(_lock, 'fcntl', None)
  now = [time.time()]
  monkeypatch.setattr(_lock, '_now', lambda: now[0])
  header = {'alpha': 1}
  with _child(_HOLDER, tmp_path, 'append', 'lease') as child:
    assert child.stdout.readline() == b'ready\n'
    child.send_signal(signal.SIGKILL)
  now[0] = time.time() + 290
  with pytest.raises(OSError, match=f'process {child.pid} .* heard of 29. s ago.*5 minutes'):
    with records.writer(tmp_path, header):
      pass
  now[0] += 20
  with records.writer(tmp_path, header) as open_run:
    assert len(open_run.finished) == 3
  assert not list(tmp_path.glob('.*.lease'))  # A clean end gives it back.


def test_where_the_kernel_refuses_to_lock(tmp_path, run, monkeypatch):
  def no_locks(descriptor, how):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(_lock.fcntl, 'flock', no_locks)
  with records.writer(tmp_path, run.header):
    with pytest.raises(OSError, match='is writing here'):
      write(tmp_path, run, [])


def test_a_lost_lease_stops_the_writer(tmp_path, run, monkeypatch):
  monkeypatch.setattr(_lock, 'fcntl', None)
  monkeypatch.setattr(_lock, '_RENEW_SECONDS', 0.01)
  lease = tmp_path / '.records.lease'
  with records.writer(tmp_path, run.header) as open_run:
    open_run.append(run.record(0))
    first = json.loads(lease.read_bytes())['time']
    _wait_until(lambda: (_lock._read(lease).get('time') or 0) > first)  # It is renewed.
    # The other's lease is put back until no renewal stands between our reading and writing it.
    other = json.dumps({'token': 'x', 'host': 'b', 'pid': 7, 'time': time.time()})

    def stopped():
      lease.write_text(other)
      try:
        open_run.append(run.record(stopped.index))
      except OSError as error:
        return 'taken over by process 7 on b' in str(error)
      stopped.index += 1
      return False

    stopped.index = 1
    _wait_until(stopped)
  assert json.loads(lease.read_bytes())['token'] == 'x'  # Not ours to remove.
  assert len(records.read(tmp_path)[1]) == stopped.index


def _wait_until(done, seconds=10):
  end = time.monotonic() + seconds
  while not done():
    assert time.monotonic() < end
    time.sleep(0.005)


# ----------------------------------------------------------------- processes that die

_SHARD = """
import resource, sys, time
from certjax import records
from certjax.records import _lock
_lock._SETTLE_SECONDS = 0
out, store, index, pause, limit = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
print('ready', flush=True)
if limit:
  resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
mine = range(int(index), 1000, 2)
header = {'sigma': .25, 'num_images': 1000}
options = dict(shard=(int(index), 2), num_images=len(mine), store=store, segment_images=20)
try:
  with records.writer(out, header, **options) as run:
    finished = {record['index'] for record in run.finished}
    for i in mine:
      if i not in finished:
        record = {'index': i, 'label': 1, 'predict': 1, 'radius': (i + .1) ** .5}
        run.append(record, {'seconds': i / 8})
        time.sleep(pause)
except OSError as error:
  print(error)
  sys.exit(2)
"""


def _child(code, *arguments):
  command = [sys.executable, '-c', code, *map(str, arguments)]
  return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.parametrize('store', STORES)
def test_killed_at_random_moments_nothing_is_lost_or_written_twice(tmp_path, store):
  # A pause is 4 ms, delays at most 120 ms: no child comes near its 500 images.
  chance, before = random.Random(0), 0
  for kill in range(10):
    with _child(_SHARD, tmp_path / 'killed', store, kill % 2, 0.004, 0) as child:
      child.stdout.readline()
      time.sleep(chance.uniform(0.02, 0.12))
      child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    if records.exists(tmp_path / 'killed'):
      finished = len(records.read(tmp_path / 'killed')[1])
      assert finished >= before
      before = finished
  assert 20 < before < 300 and records.problems(tmp_path / 'killed')
  for out in ('killed', 'straight'):
    for index in range(2):
      child = _child(_SHARD, tmp_path / out, store, index, 0, 0)
      assert child.communicate() == (b'ready\n', None) and child.returncode == 0
  for out in ('killed', 'straight'):
    merged = records.write_merged(tmp_path / out).read_bytes()
    assert merged.count(b'\n') == 1001
  assert merged == (tmp_path / 'killed' / 'records.jsonl').read_bytes()
  lines = sum(_num_records(path) for path in (tmp_path / 'killed').glob('records-*'))
  assert lines == 1000


def _num_records(path):
  return path.read_bytes().count(b'\n') - 1


@pytest.mark.parametrize('store', STORES)
def test_a_full_disk_is_one_line_and_the_run_resumes(tmp_path, store):
  """The limit on a file's size stops a growing file, or the journal, as a full disk does."""
  limit = {'append': 4_000, 'segments': 1_500}[store]
  child = _child(_SHARD, tmp_path, store, 0, 0, limit)
  out = child.communicate()[0].decode().splitlines()
  assert child.returncode == 2 and len(out) == 2
  assert 'cannot write' in out[1] and 'same command resumes' in out[1]
  reached = len(records.read(tmp_path)[1])
  for index in range(2):
    assert _child(_SHARD, tmp_path, store, index, 0, 0).communicate() == (b'ready\n', None)
  assert records.problems(tmp_path) == [] and reached < 500
  assert len(records.read(tmp_path)[1]) == 1000


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full on this system')
def test_dev_full(tmp_path, run):
  write(tmp_path, run, range(5))
  before = (tmp_path / 'records.jsonl').read_bytes()
  with pytest.raises(OSError, match='cannot write: No space left on device'):
    with records.writer(tmp_path, run.header) as open_run:
      (tmp_path / 'records.jsonl').rename(tmp_path / 'aside')
      (tmp_path / 'records.jsonl').symlink_to('/dev/full')
      open_run.append(run.record(5), run.timing(5))
  (tmp_path / 'aside').replace(tmp_path / 'records.jsonl')
  assert write(tmp_path, run, range(20)) == 5
  assert (tmp_path / 'records.jsonl').read_bytes().startswith(before)
  assert records.problems(tmp_path) == [] and 5 in records.read_timing(tmp_path)
