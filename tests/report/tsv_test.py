import numpy as np
import pytest

from certjax import report
from certjax.certify import certificate

HEAD = 'idx\tlabel\tpredict\tradius\tcorrect\ttime\n'


def _file(tmp_path, text, name='log.tsv'):
  path = tmp_path / name
  path.write_text(text)
  return path


def test_both_times_and_abstentions(tmp_path):
  path = _file(
    tmp_path,
    HEAD
    + '0\t3\t3\t0.165\t1\t0:02:31.238689\n'
    + '20\t7\t-1\t0.0\t0\t15.4\n'
    + '40\t1\t2\t1.35\t0\t0:00:14\n'
    + '60\t1\t1\t0.5\t1\t1 day, 2:00:01.500000\n',
  )
  run = report.read_tsv(path)
  assert run.name == 'log' and run.header is None
  np.testing.assert_array_equal(run.index, [0, 20, 40, 60])
  np.testing.assert_array_equal(run.labels, [3, 7, 1, 1])
  np.testing.assert_array_equal(run.certificate.label, [3, -1, 2, 1])
  np.testing.assert_array_equal(run.certificate.radius, [0.165, 0, 1.35, 0.5])
  np.testing.assert_allclose(run.seconds, [151.238689, 15.4, 14, 26 * 3600 + 1.5], rtol=1e-12)


def test_correct_is_recomputed(tmp_path):
  """Some logs count up in `correct`."""
  rows = [(0, 1, 1, 1), (1, 1, 2, 1), (2, 5, 5, 2), (3, 5, 5, 3)]
  text = ''.join(f'{i}\t{y}\t{p}\t0.5\t{c}\t1.0\n' for i, y, p, c in rows)
  run = report.read_tsv(_file(tmp_path, HEAD + text))
  assert report.clean_accuracy(run.certificate, run.labels) == 0.75


def test_predictions_and_missing_times(tmp_path):
  text = 'idx\tlabel\tpredict\tcorrect\ttime\n0\t5\t5\t1\t0:00:01.000000\n1\t5\t-1\t0\t2.5\n'
  run = report.read_tsv(_file(tmp_path, text))
  np.testing.assert_array_equal(run.certificate.radius, 0)
  np.testing.assert_array_equal(run.certificate.label, [5, -1])
  report.write_tsv(tmp_path / 'again', run, prediction=True)
  assert (tmp_path / 'again').read_text() == text.replace('2.5', '0:00:02.500000')
  report.write_tsv(tmp_path / 'untimed', run._replace(seconds=None))
  assert (tmp_path / 'untimed').read_text().startswith('idx\tlabel\tpredict\tradius\tcorrect\n0\t')
  assert report.read_tsv(tmp_path / 'untimed').seconds is None
  report.write_tsv(tmp_path / 'gaps', run._replace(seconds=np.array([np.nan, 1])))
  np.testing.assert_array_equal(report.read_tsv(tmp_path / 'gaps').seconds, [np.nan, 1])


@pytest.mark.parametrize(
  'text, message',
  [
    ('', r':1: columns \[\]'),
    ('idx,label,predict\n', r':1: columns'),
    (HEAD.replace('radius', 'margin'), r":1: columns .*'margin'"),
    (HEAD + '0\t1\t1\t0.5\t1\n', ':2: 5 values for the 6 columns'),
    (HEAD + '0\t1\t1\t0.5\t1\t1.0\n1\t1\tx\t0.5\t1\t1.0\n', r":3: invalid literal for int.*'x'"),
    (HEAD + '0\t1\t1\tabc\t1\t1.0\n', ":2: could not convert string to float: 'abc'"),
    (HEAD + '0\t1\t1\t0.5\t1\t1:2:3:4\n', ':2: could not convert string to float'),
    (HEAD + '5\t1\t1\t0.5\t1\t1.0\n5\t1\t1\t0.5\t1\t1.0\n', 'idx 5 after 5'),
  ],
)
def test_errors_name_file_and_line(tmp_path, text, message):
  with pytest.raises(
    ValueError, match=r'log\.tsv' + (message if message[0] == ':' else '.*' + message)
  ):
    report.read_tsv(_file(tmp_path, text))


def test_printed_radius_never_exceeds_the_stored(tmp_path):
  draw = np.random.default_rng(0)
  radius = np.concatenate(
    [
      10.0 ** draw.uniform(-8, 8, 5_000),
      np.nextafter(draw.integers(1, 1000, 1_000) / 1000, 0),  # Just below a printable value.
      draw.integers(0, 1000, 1_000) / 1000,
      [0.0, 5e-324, 1.0, 8.0, np.inf],
    ]
  )
  size = radius.size
  run = report.Run('r', np.arange(size), np.ones(size, int), certificate(np.ones(size), radius))
  for digits in (1, 3, 6):
    report.write_tsv(tmp_path / 'log', run, digits=digits)
    printed = report.read_tsv(tmp_path / 'log').certificate.radius
    assert np.all(printed <= radius)
    finite = np.isfinite(radius) & (radius > 1e-300)
    assert np.all(printed[finite] > radius[finite] * (1 - 10.0 ** (1 - digits)))
    # What was cut once stays as it is.
    report.write_tsv(tmp_path / 'twice', report.read_tsv(tmp_path / 'log'), digits=digits)
    assert (tmp_path / 'twice').read_text() == (tmp_path / 'log').read_text()


def test_round_trip_of_everything_else(tmp_path):
  proved = certificate([3, -1, 12], [0.123456, 0, 2.0])
  seconds = np.array([0.000001, 59.9999996, 100_000.25])
  run = report.Run('log', np.array([0, 7, 9]), np.array([3, 1, 4]), proved, seconds)
  report.write_tsv(tmp_path / 'log', run)
  assert (tmp_path / 'log').read_text() == (
    HEAD
    + '0\t3\t3\t0.123\t1\t0:00:00.000001\n'
    + '7\t1\t-1\t0.0\t0\t0:01:00.000000\n'
    + '9\t4\t12\t2.0\t0\t27:46:40.250000\n'
  )
  again = report.read_tsv(tmp_path / 'log')
  np.testing.assert_allclose(again.seconds, seconds, atol=6e-7)
  np.testing.assert_array_equal(again.index, run.index)
