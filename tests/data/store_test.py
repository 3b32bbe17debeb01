"""Data sets on disk: the digits round trip, preparing at once, and every error in one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from certjax import data
from certjax.data import _digits, _store

SHARED = Path(__file__).parents[2] / '../shared/data/tensorflow_datasets'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('tfds')
  data.prepare('digits', path)
  return path


def run(code, *args):
  return subprocess.Popen(
    [sys.executable, '-W', 'error', '-c', code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def one_line(error):
  text = str(error.value)
  assert '\n' not in text and len(text) < 500, text
  return text


def test_digits_are_scikit_learns_bit_for_bit(folder):
  from sklearn.datasets import load_digits

  digits = load_digits()
  train, test = (data.load('digits', split, data_dir=folder) for split in ('train', 'test'))
  images = np.concatenate([train.images, test.images])[..., 0]
  labels = np.concatenate([train.labels, test.labels])
  np.testing.assert_array_equal(images, np.round(digits.images * 255 / 16))
  np.testing.assert_array_equal(np.round(images * 16.0 / 255), digits.images)  # Nothing is lost.
  np.testing.assert_array_equal(labels, digits.target)
  assert (len(train.labels), len(test.labels)) == (1_297, 500)
  assert (images.dtype, labels.dtype, test.index.dtype) == (np.uint8, np.int32, np.int64)
  np.testing.assert_array_equal(test.index, np.arange(500))


def test_first_use_prepares_digits_without_tensorflow_jax_or_noise(tmp_path):
  code = (
    'import sys; from certjax import data\n'
    'lazy = {"jax", "tensorflow", "tensorflow_datasets", "sklearn", "PIL"} & set(sys.modules)\n'
    'assert not lazy, lazy\n'
    'assert len(data.load("digits", "test", data_dir=sys.argv[1]).labels) == 500\n'
    'loaded = {"jax", "tensorflow"} & set(sys.modules)\n'
    'assert not loaded, loaded\n'
    'import tensorflow_datasets as tfds\n'
    'names = tfds.list_builders(with_community_datasets=False)\n'
    'assert "mnist" in names and "digits" not in names\n'
  )
  process = run(code, tmp_path)
  assert process.communicate() == ('', None) and process.returncode == 0


def test_two_processes_may_prepare_at_once(tmp_path):
  code = (
    'import sys; from certjax import data\n'
    'print(int(data.load("digits", "train", data_dir=sys.argv[1]).images.sum()))'
  )
  processes = [run(code, tmp_path) for _ in range(2)]
  outputs = [p.communicate()[0] for p in processes]
  expected = int(_digits.digits_arrays()[0][:1_297].sum())
  assert outputs == [f'{expected}\n'] * 2
  assert sorted(p.name for p in (tmp_path / 'digits').iterdir()) == ['1.0.0']


def test_a_lost_race_without_locks_is_no_error(tmp_path, monkeypatch):
  class Loser:
    def __init__(self, data_dir):
      self.finished = data_dir / 'digits' / '1.0.0'

    def download_and_prepare(self):
      self.finished.mkdir(parents=True)
      raise OSError(39, 'Directory not empty')

  monkeypatch.setattr(_digits, '_builder', Loser)
  _digits.write_digits(tmp_path)
  assert (tmp_path / 'digits' / '1.0.0').exists()


def test_prepared_digits_are_readable_by_tfds_itself(folder):
  import tensorflow_datasets as tfds

  # TFDS' own decoder asks for the image, and so sees Pillow's pixels or OpenCV's: PNG, hence equal.
  example = tfds.builder('digits', data_dir=str(folder)).as_data_source('test')[7]
  ours = data.load('digits', 'test', data_dir=folder, indices=[7])
  np.testing.assert_array_equal(example['image'], ours.images[0])
  assert example['label'] == ours.labels[0]


def test_prepare_is_idempotent_and_status_tells(folder):
  before = (folder / 'digits/1.0.0/dataset_info.json').stat().st_mtime_ns
  assert data.prepare('digits', folder) == folder / 'digits/1.0.0'
  assert (folder / 'digits/1.0.0/dataset_info.json').stat().st_mtime_ns == before
  rows = {row.name: row for row in data.status(folder)}
  assert list(rows) == list(data.DATASETS)
  assert rows['digits'] == ('digits', True, folder / 'digits/1.0.0', '')
  assert rows['imagenet100'] == (
    'imagenet100',
    False,
    folder / 'imagenet2012',
    'certjax data prepare imagenet100',
  )


def test_default_data_dir_is_tfds_convention(monkeypatch, tmp_path):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  assert data.default_data_dir() == tmp_path
  assert not data.is_prepared('digits')
  monkeypatch.delenv('TFDS_DATA_DIR')
  assert data.default_data_dir() == Path.home() / 'tensorflow_datasets'


def test_unprepared_names_place_and_command(tmp_path):
  with pytest.raises(ValueError) as error:
    data.load('mnist', 'test', data_dir=tmp_path)
  text = one_line(error)
  assert str(tmp_path / 'mnist') in text and '`certjax data prepare mnist`' in text


def test_preparing_without_tensorflow_says_what_to_run(tmp_path, monkeypatch):
  monkeypatch.setattr(_store.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError) as error:
    data.prepare('cifar10', tmp_path)
  text = one_line(error)
  assert 'pip install "certjax[prepare]"' in text and '`certjax data prepare cifar10`' in text


def test_preparing_imagenet_asks_for_the_archives(tmp_path, monkeypatch):
  monkeypatch.setattr(_store.importlib.util, 'find_spec', lambda name: object())
  with pytest.raises(ValueError) as error:
    data.prepare('imagenet2012', tmp_path)
  text = one_line(error)
  assert 'ILSVRC2012_img_train.tar' in text and str(tmp_path / 'downloads/manual') in text


@pytest.mark.parametrize(
  'call, words',
  [
    (lambda d: data.dataset('cifar'), "Did you mean 'cifar10'"),
    (lambda d: data.load('digits', 'tset', data_dir=d), "Did you mean 'test'"),
    (lambda d: data.load('imagenet2012', 'test', data_dir=d), '`indices`'),
    (lambda d: data.load('digits', 'test', data_dir=d, indices=[3, 500]), '0 .. 499'),
    (lambda d: data.load('digits', 'test', data_dir=d, indices=[-1]), 'got -1'),
    (lambda d: data.load('digits', 'test', data_dir=d, indices=[0.5]), 'float64'),
    (lambda d: data.load('digits', 'test', data_dir=d, indices=[]), 'non-empty'),
  ],
)
def test_wrong_arguments(folder, call, words):
  with pytest.raises(ValueError) as error:
    call(folder)
  assert words in one_line(error)


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError) as error:
    data.load('digits', 'test', data_dir=tmp_path / 'file')
  assert 'TFDS_DATA_DIR' in one_line(error)


def test_another_file_format_is_named(folder, tmp_path):
  copy(folder, tmp_path)
  info = tmp_path / 'digits/1.0.0/dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  assert not data.is_prepared('digits', tmp_path)
  with pytest.raises(ValueError) as error:
    data.load('digits', 'test', data_dir=tmp_path)
  assert 'holds tfrecord' in one_line(error)


def copy(folder, to):
  target = to / 'digits/1.0.0'
  target.mkdir(parents=True)
  for file in (folder / 'digits/1.0.0').iterdir():
    (target / file.name).write_bytes(file.read_bytes())


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


def scramble(path):
  content = bytearray(path.read_bytes())
  content[200:20_000] = bytes(19_800)
  path.write_bytes(content)


@pytest.mark.parametrize(
  'file, harm',
  [
    ('digits-test.array_record-00000-of-00001', truncate),
    ('digits-test.array_record-00000-of-00001', scramble),
    ('digits-test.array_record-00000-of-00001', Path.unlink),
    ('features.json', Path.unlink),
    ('features.json', lambda path: path.write_text('{')),
    ('dataset_info.json', lambda path: path.write_text('{')),
  ],
)
def test_corrupt_files_end_in_one_line(folder, tmp_path, file, harm):
  copy(folder, tmp_path)
  harm(tmp_path / 'digits/1.0.0' / file)
  with pytest.raises(ValueError) as error:
    data.load('digits', 'test', data_dir=tmp_path)
  assert str(tmp_path / 'digits/1.0.0') in one_line(error)


def test_progress_reaches_the_total(folder):
  seen = []
  data.load('digits', 'train', data_dir=folder, progress=lambda *args: seen.append(args))
  assert seen == [(1_000, 1_297), (1_297, 1_297)]


def test_loading_indices_is_indexing(folder):
  indices = [499, 3, 3, 250]
  whole = data.load('digits', 'test', data_dir=folder)
  part = data.load('digits', 'test', data_dir=folder, indices=indices)
  np.testing.assert_array_equal(part.images, whole.images[indices])
  np.testing.assert_array_equal(part.labels, whole.labels[indices])
  np.testing.assert_array_equal(part.index, indices)
  examples = data.source('digits', 'test', folder)
  image, label = examples[250]
  np.testing.assert_array_equal(image, whole.images[250])
  assert label == whole.labels[250] and len(examples) == 500
  with pytest.raises(IndexError, match='500 images'):
    examples[500]


@pytest.mark.parametrize('name', ['mnist', 'cifar10'])
def test_real_data_sets(name):
  if not data.is_prepared(name, SHARED):
    pytest.skip(f'real {name} is not beside this checkout')
  spec = data.dataset(name)
  images = data.load(name, 'test', data_dir=SHARED, indices=data.subset(10_000, evenly=200))
  data.check_images(images.images, shape=spec.shape)
  data.check_labels(images.labels, spec.num_classes)
  assert set(images.labels.tolist()) == set(range(10))
  for split, size in spec.sizes.items():
    assert len(data.source(name, split, SHARED)) == size
  assert (images.images.min(), images.images.max()) == (0, 255)


@pytest.mark.parametrize(
  'kwargs',
  [
    {'num_total': 0},
    {'num_total': 5, 'skip': 0},
    {'num_total': 5, 'max_images': 0},
    {'num_total': 5, 'evenly': 6},
    {'num_total': 5, 'evenly': 2, 'skip': 2},
  ],
)
def test_subset_refuses(kwargs):
  with pytest.raises(ValueError, match='`'):
    data.subset(**kwargs)


def test_subset_evenly_has_equal_gaps():
  for total, evenly in [(10_000, 500), (10, 10), (7, 3)]:
    gaps = np.diff(data.subset(total, evenly=evenly))
    assert gaps.max() - gaps.min() <= 1
  assert len(data.subset(10_000, skip=20)) == 500  # Cohen et al.'s 500 images.
