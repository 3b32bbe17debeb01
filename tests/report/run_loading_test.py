import numpy as np
import pytest

from certjax import records, report

HEADER = {'norm': 'l2', 'unit': 'pixel value', 'alpha': 0.001}


def _records(directory, timing=True):
  records.start(directory, HEADER)
  rows = [(2, 1, 1, 0.1234567890123456789), (5, 0, -1, 0.0), (9, 3, 3, np.inf)]
  for index, label, predict, radius in rows:
    record = {'index': index, 'label': label, 'predict': predict, 'radius': radius}
    records.append(directory, record, {'seconds': index / 2} if timing and index != 5 else None)
  return directory


def test_a_run_from_its_directory_or_its_file(tmp_path):
  _records(tmp_path / 'mine')
  for path in (tmp_path / 'mine', tmp_path / 'mine' / 'records.jsonl'):
    run = report.load(path)
    assert run.name == 'mine' and run.header == {**HEADER, 'schema': 1}
    np.testing.assert_array_equal(run.index, [2, 5, 9])
    np.testing.assert_array_equal(run.labels, [1, 0, 3])
    np.testing.assert_array_equal(run.certificate.label, [1, -1, 3])
    np.testing.assert_array_equal(run.certificate.radius, [0.1234567890123456789, 0, np.inf])
    np.testing.assert_array_equal(run.seconds, [1, np.nan, 4.5])
  assert report.load(tmp_path / 'mine', name='other').name == 'other'
  assert report.load(_records(tmp_path / 'untimed', timing=False)).seconds is None


def test_records_become_the_field_s_log_and_back(tmp_path):
  run = report.load(_records(tmp_path / 'mine'))
  report.write_tsv(tmp_path / 'mine.tsv', run)
  again = report.load(tmp_path / 'mine.tsv')
  assert again.name == 'mine' and again.header is None
  np.testing.assert_array_equal(again.certificate.radius, [0.123, 0, np.inf])
  np.testing.assert_array_equal(again.certificate.label, run.certificate.label)
  np.testing.assert_array_equal(again.seconds, run.seconds)


def test_a_run_that_has_only_begun(tmp_path):
  records.start(tmp_path / 'new', HEADER)
  run = report.load(tmp_path / 'new')
  assert run.index.shape == run.labels.shape == run.certificate.label.shape == (0,)
  with pytest.raises(ValueError, match='new holds no image yet'):
    report.table([run])


def test_names_tell_paths_apart(tmp_path):
  paths = [tmp_path / noise / 'test' / sigma for noise in ('a', 'b') for sigma in ('x', 'y')]
  runs = report.load_all(_records(path) for path in paths)
  assert [run.name for run in runs] == ['a/test/x', 'a/test/y', 'b/test/x', 'b/test/y']
  runs = report.load_all([paths[0] / 'records.jsonl', paths[1]])
  assert [run.name for run in runs] == ['x', 'y']
  assert [
    run.name for run in report.load_all([paths[0]] * 2)
  ]  # The same path twice: no endless search.


def test_errors(tmp_path):
  with pytest.raises(OSError, match='nothing'):
    report.load(tmp_path / 'nothing')
  with pytest.raises(OSError, match=r'records\.jsonl'):
    report.load(tmp_path)
  (tmp_path / 'notes.txt').write_text('hello\n')
  with pytest.raises(ValueError, match=r'notes\.txt:1: columns'):
    report.load(tmp_path / 'notes.txt')
  (tmp_path / 'blob').write_bytes(bytes(range(256)))
  with pytest.raises(ValueError, match='blob:1'):
    report.load(tmp_path / 'blob')
