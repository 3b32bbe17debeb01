import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from certjax import records
from certjax.records import _lines

HEADER = {'method': {'name': 'gaussian', 'sigma': 0.25}, 'alpha': 0.001, 'split': 'test'}


def _record(index):
  """An awkward radius: its decimals must survive, whatever the index."""
  return {
    'index': index,
    'label': index % 10,
    'predict': index % 10 if index % 7 else -1,
    'radius': math.sqrt(index + 0.1) / 3 if index % 7 else 0.0,
    'count': 100_000 - index,
  }


def _write(directory, num_records, header=HEADER, timing=True):
  done = len(records.start(directory, header))
  for index in range(done, num_records):
    seconds = {'seconds': index / 8, 'host': 'a', 'device': 'cpu'} if timing else None
    records.append(directory, _record(index), seconds)
  return directory


def _bytes(directory):
  return [(directory / name).read_bytes() for name in ('records.jsonl', 'timing.jsonl')]


def test_round_trip(tmp_path):
  run = _write(tmp_path / 'new' / 'run', 20)
  header, read = records.read(run)
  assert header == {**HEADER, 'schema': 1}
  assert read == [_record(index) for index in range(20)]
  assert records.read(run / 'records.jsonl') == (header, read)
  assert records.start(run, HEADER) == read
  assert records.read_timing(run)[16] == {'index': 16, 'seconds': 2.0, 'host': 'a', 'device': 'cpu'}


def test_lines_do_not_depend_on_the_order_of_keys_or_on_numpy(tmp_path):
  _write(tmp_path / 'a', 3)
  backwards = {key: HEADER[key] for key in reversed(HEADER)}
  records.start(tmp_path / 'b', backwards)
  for index in range(3):
    fields = {key: np.asarray(value)[()] for key, value in reversed(_record(index).items())}
    records.append(tmp_path / 'b', fields)
  assert _bytes(tmp_path / 'a')[0] == (tmp_path / 'b' / 'records.jsonl').read_bytes()


def test_infinity_is_valid_json_and_nan_is_refused(tmp_path):
  records.start(tmp_path, {'eps': math.inf})
  records.append(tmp_path, {**_record(1), 'radius': np.float64(math.inf)})
  for line in (tmp_path / 'records.jsonl').read_text().splitlines():
    json.loads(line, parse_constant=pytest.fail)
  assert records.start(tmp_path, {'eps': math.inf})[0]['radius'] == math.inf
  before = (tmp_path / 'records.jsonl').read_bytes()
  with pytest.raises(ValueError, match='record 2 is not JSON'):
    records.append(tmp_path, {**_record(2), 'radius': math.nan})
  with pytest.raises(ValueError, match='no field radius'):
    records.append(tmp_path, {'index': 2, 'label': 0, 'predict': 0})
  assert (tmp_path / 'records.jsonl').read_bytes() == before


def test_every_torn_file_resumes_to_the_same_bytes(tmp_path):
  """Cuts the records at every byte, as if the process had died within that write."""
  whole = _bytes(_write(tmp_path / 'whole', 3))
  (tmp_path / 'cut').mkdir()
  for length in range(len(whole[0])):
    (tmp_path / 'cut' / 'records.jsonl').write_bytes(whole[0][:length])
    (tmp_path / 'cut' / 'timing.jsonl').write_bytes(whole[1])
    assert _bytes(_write(tmp_path / 'cut', 3)) == whole, length


def test_every_torn_timing_is_mended(tmp_path):
  whole = _bytes(_write(tmp_path, 3))
  for length in range(len(whole[1])):
    (tmp_path / 'timing.jsonl').write_bytes(whole[1][:length])
    assert len(records.start(tmp_path, HEADER)) == 3
    kept = (tmp_path / 'timing.jsonl').read_bytes()
    assert kept == b''.join(whole[1][:length].splitlines(keepends=True)[: kept.count(b'\n')])
    assert len(records.read_timing(tmp_path)) == whole[1][:length].count(b'\n')


def test_read_tolerates_a_torn_last_line_and_leaves_it(tmp_path):
  run = _write(tmp_path, 3)
  path = run / 'records.jsonl'
  for tail in (b'{"index": 3, "la', b'\x00\x00\x00', b'{"index": 3, "label": \n'):
    torn = _bytes(run)[0] + tail
    path.write_bytes(torn)
    assert len(records.read(run)[1]) == 3
    assert path.read_bytes() == torn
    assert len(records.start(run, HEADER)) == 3
    assert len(path.read_bytes()) == len(torn) - len(tail)


def test_a_corrupt_middle_line_names_file_and_line(tmp_path):
  run = _write(tmp_path, 4)
  path = run / 'records.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join([*lines[:2], '{"index": 1, "label\n', *lines[3:]]))
  for open_run in (records.read, lambda run: records.start(run, HEADER)):
    with pytest.raises(ValueError, match=r'records\.jsonl:3: corrupt line') as error:
      open_run(run)
    assert '\n' not in str(error.value)
  path.write_text(''.join(lines) + '{"index": 4, "label\n' + '{"index": 5')
  with pytest.raises(ValueError, match=r'records\.jsonl:6: corrupt line'):
    records.read(run)  # Two damaged lines are more than one killed write leaves.
  path.write_text(''.join([*lines[:3], lines[2], lines[4]]))
  with pytest.raises(ValueError, match=r'records\.jsonl:4: index 1 after 1'):
    records.read(run)
  path.write_text(lines[0] + '{"index": 0}\n' + lines[2])
  with pytest.raises(ValueError, match=r'records\.jsonl:2: no field label, predict, radius'):
    records.read(run)


def test_another_header_is_refused_and_nothing_changes(tmp_path):
  before = _bytes(_write(tmp_path, 3))
  other = {'method': {'name': 'gaussian', 'sigma': 0.5}, 'alpha': 0.001, 'num_samples': 100}
  with pytest.raises(ValueError) as error:
    records.start(tmp_path, other)
  message = str(error.value)
  assert '\n' not in message
  assert 'method.sigma is 0.25 there and 0.5 here' in message
  assert 'num_samples is absent there and 100 here' in message
  assert "split is 'test' there and absent here" in message
  assert 'alpha' not in message and 'method.name' not in message
  assert 'another --out, or the same configuration' in message
  assert _bytes(tmp_path) == before


def test_a_file_that_is_no_run_is_refused_and_kept(tmp_path):
  path = tmp_path / 'records.jsonl'
  for content in (b'my notes', b'my notes\n', b'{"alpha": 1', b'[]\n'):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='no header of this run'):
      records.start(tmp_path, HEADER)
    assert path.read_bytes() == content
  path.write_text('idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.1\t1\t15.4\n')
  with pytest.raises(ValueError, match=r'records\.jsonl:1: .*certjax\.report\.load'):
    records.read(path)
  with pytest.raises(ValueError, match='no header'):
    path.write_text('')
    records.read(path)


def test_schemas(tmp_path, monkeypatch):
  run = _write(tmp_path, 2)
  path = run / 'records.jsonl'
  path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
  with pytest.raises(ValueError, match='schema 2, but .* reads 1: install a newer certjax'):
    records.read(run)
  path.write_text(path.read_text().replace('"schema": 2', '"schema": 0').replace('"label"', '"y"'))
  with pytest.raises(ValueError, match='schema 0, but .* reads 1: no upgrade is known'):
    records.read(run)

  def upgrade(header, old):
    return header, [{'label': record['y'], **record} for record in old]

  monkeypatch.setitem(_lines.UPGRADES, 0, upgrade)
  header, upgraded = records.read(run)
  assert header['schema'] == 1 and [record['label'] for record in upgraded] == [0, 1]


def test_merge(tmp_path):
  parts = [tmp_path / name for name in 'abc']
  for part, indices in zip(parts, ([1, 4], [0, 2, 4], [3]), strict=True):
    records.start(part, HEADER)
    for index in indices:
      records.append(part, _record(index))
  assert records.merge(parts) == ({**HEADER, 'schema': 1}, [_record(i) for i in range(5)])

  records.append(parts[2], {**_record(4), 'radius': 9.0})
  with pytest.raises(ValueError, match='c: index 4 is .*9.0'):
    records.merge(parts)
  records.start(tmp_path / 'd', {**HEADER, 'alpha': 0.01})
  with pytest.raises(ValueError, match='alpha is 0.01 there and 0.001 here'):
    records.merge([parts[0], tmp_path / 'd'])
  with pytest.raises(ValueError, match='nothing to merge'):
    records.merge([])


def test_fingerprint_sees_names_dtypes_shapes_and_bytes():
  x = np.arange(6, dtype=np.float32)
  trees = [
    {'a': x},
    {'b': x},
    {'a': x.astype(np.float64)},
    {'a': x.reshape(2, 3)},
    {'a': x, 'b': {}},
    {'a': x + 1},
    {'a': [x]},
    {'a': {'a': x}},
    [x],
    x,
    x.tobytes(),
    {'a': x[:3], 'b': x[3:]},
    {'a': x[:2], 'b': x[2:]},
    b'',
    [],
    {},
  ]
  assert len({records.fingerprint(tree) for tree in trees}) == len(trees)
  same = {'z': {'q': b'1', 'p': x[::2]}, 'a': (x, 1)}
  swapped = {'a': [x.astype('>f4'), 1], 'z': {'p': x[::2].copy(), 'q': b'1'}}
  assert records.fingerprint(same) == records.fingerprint(swapped)
  with pytest.raises(ValueError, match='numbers and bytes, got str'):
    records.fingerprint({'a': 'text'})


# ----------------------------------------------------------------- processes that die

_CHILD = """
import sys, time
from certjax import records
from certjax.records import _lines
out, total, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
print('ready', flush=True)
for index in range(len(records.start(out, {'sigma': .25})), total):
  record = {'index': index, 'label': 1, 'predict': 1, 'radius': (index + .1) ** .5}
  records.append(out, record, {'seconds': index / 8})
  time.sleep(pause)
"""


def _child(out, total, pause):
  command = [sys.executable, '-c', _CHILD, str(out), str(total), str(pause)]
  return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_fifty_kills_at_random_moments_leave_the_same_bytes(tmp_path):
  # A pause is .2 ms or more, delays 15 ms on average: 50 children write some 4,000 images.
  total, delays = 15_000, random.Random(0)
  for _ in range(50):
    with _child(tmp_path / 'killed', total, 0.0002) as child:
      child.stdout.readline()
      time.sleep(delays.uniform(0, 0.03))
      child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
  assert 50 < len(records.read(tmp_path / 'killed')[1]) < total
  for out in ('killed', 'straight'):
    assert _child(tmp_path / out, total, 0).communicate() == (b'ready\n', None)
  assert _bytes(tmp_path / 'killed') == _bytes(tmp_path / 'straight')
  assert len(records.read(tmp_path / 'straight')[1]) == total


_LIMITED = """
import resource, sys
from certjax import records
from certjax.records import _lines
out = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
try:
  for index in range(len(records.start(out, {'sigma': .25})), 200):
    records.append(out, {'index': index, 'label': 1, 'predict': 1, 'radius': index / 7})
except OSError as error:
  print(error)
  try:
    records.append(out, {'index': index, 'label': 1, 'predict': 1, 'radius': index / 7})
  except OSError:
    sys.exit(2)
"""


def test_a_full_disk_is_one_line_and_the_run_resumes(tmp_path):
  """The limit on the file's size cuts one write short, as a full disk does."""
  command = [sys.executable, '-c', _LIMITED, str(tmp_path)]
  child = subprocess.run(command, capture_output=True, text=True)
  assert child.returncode == 2 and child.stderr == ''
  assert child.stdout.count('\n') == 1 and 'records.jsonl' in child.stdout
  assert 'cannot write' in child.stdout and 'same command resumes' in child.stdout
  content = (tmp_path / 'records.jsonl').read_bytes()
  assert content.endswith(b'\n') and 4_900 < len(content) <= 5_000  # The part was taken back.
  done = records.start(tmp_path, {'sigma': 0.25})
  for index in range(len(done), 200):
    records.append(tmp_path, {'index': index, 'label': 1, 'predict': 1, 'radius': index / 7})
  assert [r['radius'] for r in records.read(tmp_path)[1]] == [index / 7 for index in range(200)]


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full on this system')
@pytest.mark.parametrize('name', ['records.jsonl', 'timing.jsonl'])
def test_dev_full(tmp_path, name):
  run = _write(tmp_path, 2)
  before = _bytes(run)
  (run / name).rename(run / 'aside')
  (run / name).symlink_to('/dev/full')
  with pytest.raises(OSError, match='cannot write: No space left on device') as error:
    records.append(run, _record(2), {'seconds': 1.0})
  assert '\n' not in str(error.value)
  (run / 'aside').replace(run / name)
  assert len(records.start(run, HEADER)) == 2
  assert _bytes(run) == before


def test_a_directory_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='cannot write') as error:
    records.start(tmp_path / 'file' / 'run', HEADER)
  assert '\n' not in str(error.value) and 'file/run' in str(error.value)
  with pytest.raises(OSError, match='cannot write'):
    records.append(tmp_path / 'missing', _record(0))


def test_needs_no_jax_and_starts_without_numpy():
  code = (
    "import sys; sys.modules['jax'] = None\n"
    "import certjax.records; assert 'numpy' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)
