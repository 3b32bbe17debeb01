"""The metrics file of a run that may be killed and continued."""

import json
import struct
import sys

import pytest

from certjax import train


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_later_and_torn_lines_are_dropped(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  with train.open_metrics(path) as write:
    for step in (10, 20, 30):
      write(step, {'loss': 1 / step})
  path.write_text(path.read_text() + '{"step": 40, "lo')
  with train.open_metrics(path, step=20) as write:
    assert read(path) == [{'step': 10, 'loss': 0.1}, {'step': 20, 'loss': 0.05}]
    write(30, {'loss': 0.5})
    assert read(path)[-1] == {'step': 30, 'loss': 0.5}  # Flushed: visible before the end.
  assert len(read(path)) == 3


@pytest.mark.parametrize('line', ['7', '{"loss": 1}', '{"step": "x"}', 'null', '\x00'])
def test_foreign_lines_are_dropped(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(line + '\n{"step": 1, "loss": 2.0}\n')
  with train.open_metrics(path, step=1):
    pass
  assert read(path) == [{'step': 1, 'loss': 2.0}]


def test_tensorboard_needs_its_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with (
    pytest.raises(ValueError, match=r'pip install "certjax\[tensorboard\]"'),
    train.open_metrics(tmp_path / 'metrics.jsonl', tensorboard=tmp_path / 'events'),
  ):
    pass


def test_tensorboard_gets_every_metric(tmp_path, monkeypatch):
  seen = []

  class Writer:
    """Stands for tensorboardX."""

    def __init__(self, folder):
      seen.append(folder)

    def add_scalar(self, *scalar):
      seen.append(scalar)

    def close(self):
      seen.append('closed')

  monkeypatch.setitem(sys.modules, 'tensorboardX', type(sys)('tensorboardX'))
  sys.modules['tensorboardX'].SummaryWriter = Writer
  with train.open_metrics(tmp_path / 'm.jsonl', tensorboard=tmp_path / 'events') as write:
    write(5, {'loss': 0.5})
  assert seen == [str(tmp_path / 'events'), ('loss', 0.5, 5), 'closed']


def test_the_events_of_tensorboard_are_read_back(tmp_path):
  """From the file itself: length, checksum, event, checksum, as TensorBoard reads it."""
  pytest.importorskip('tensorboardX', reason='tensorboardX is not installed')
  from tensorboardX.proto.event_pb2 import Event

  with train.open_metrics(tmp_path / 'm.jsonl', tensorboard=tmp_path / 'events') as write:
    write(5, {'loss': 0.5, 'accuracy': 0.25})
    write(10, {'loss': 0.125})
  (file,) = (tmp_path / 'events').iterdir()
  content, found = file.read_bytes(), []
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    event = Event.FromString(content[12 : 12 + length])
    found += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
    content = content[16 + length :]
  assert found == [('loss', 0.5, 5), ('accuracy', 0.25, 5), ('loss', 0.125, 10)]
