"""ImageNet's path on a tiny stand-in on disk: resize and crop, odd JPEGs, every tenth class."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from certjax import data
from certjax.data import _digits, _records

LABELS = [0, 7, 990, 10, 11, 999, 20]
SIZES = [(500, 300), (300, 500), (256, 256), (224, 224), (90, 60), (640, 481), (400, 401)]
MODES = ['RGB', 'L', 'CMYK', 'RGB', 'RGB', 'RGB', 'RGB']


def photo(i):
  rng = np.random.default_rng(i)
  coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
  buffer = io.BytesIO()
  coarse.resize(SIZES[i], Image.Resampling.BICUBIC).convert(MODES[i]).save(buffer, 'JPEG')
  return buffer.getvalue()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  import tensorflow_datasets as tfds

  class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('5.1.0')
    url_infos = None

    def _info(self):
      features = {
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(num_classes=1_000),
        'file_name': tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(3), 'validation': self._generate_examples(7)}

    def _generate_examples(self, count):
      for i in range(count):
        yield i, {'image': io.BytesIO(photo(i)), 'label': LABELS[i], 'file_name': f'{i}.JPEG'}

  path = tmp_path_factory.mktemp('tfds')
  with _digits._quiet():
    Imagenet2012(data_dir=str(path), file_format='array_record').download_and_prepare()
  return path


def expected(i):
  """Resize(256), CenterCrop(224), written out."""
  image = Image.open(io.BytesIO(photo(i))).convert('RGB')
  width, height = image.size
  size = (256, 256 * height // width) if width < height else (256 * width // height, 256)
  pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
  top, left = round((size[1] - 224) / 2), round((size[0] - 224) / 2)
  return pixels[top : top + 224, left : left + 224]


def test_images_are_resized_and_cropped(folder):
  images = data.load('imagenet2012', 'test', data_dir=folder, indices=range(7))
  assert images.images.shape == (7, 224, 224, 3)
  np.testing.assert_array_equal(images.images, [expected(i) for i in range(7)])
  np.testing.assert_array_equal(images.labels, LABELS)


def test_source_is_what_load_decodes(folder):
  examples = data.source('imagenet2012', 'train', folder)
  image, label = examples[1]
  assert (len(examples), label) == (3, 7)
  np.testing.assert_array_equal(image, expected(1))


def test_imagenet100_is_every_tenth_class(folder, monkeypatch):
  examples = data.source('imagenet100', 'test', folder)
  assert [label for _, label in examples] == [0, 99, 1, 2]
  images = data.load('imagenet100', 'test', data_dir=folder, indices=[1, 3])
  np.testing.assert_array_equal(images.images, [expected(2), expected(6)])
  np.testing.assert_array_equal(images.labels, [99, 2])
  np.testing.assert_array_equal(images.index, [1, 3])
  # The second opening reads no labels.
  monkeypatch.setattr(_records.Records, 'read', None)
  assert len(data.source('imagenet100', 'test', folder)) == 4


def test_a_damaged_label_cache_is_rebuilt(folder):
  cache = folder / '.certjax-imagenet2012-5.1.0-test-labels.npy'
  cache.write_bytes(b'\x93NUMPY')
  assert len(data.source('imagenet100', 'test', folder)) == 4
  np.testing.assert_array_equal(np.load(cache), LABELS)


def test_imagenet100_classes_are_sorted_wnids_by_ten():
  spec = data.dataset('imagenet100')
  assert spec.class_stride * spec.num_classes == data.dataset('imagenet2012').num_classes


def test_one_prepared_folder_serves_both(folder):
  assert data.is_prepared('imagenet2012', folder) and data.is_prepared('imagenet100', folder)
  info = json.loads((folder / 'imagenet2012/5.1.0/dataset_info.json').read_text())
  assert info['fileFormat'] == 'array_record'


def test_broken_image_bytes_end_in_one_line(folder, monkeypatch):
  monkeypatch.setattr(_records.Records, 'read', lambda self, rows: [(b'\xff\xd8no', 0)] * len(rows))
  with pytest.raises(ValueError, match='cannot read .*imagenet2012') as error:
    data.load('imagenet2012', 'test', data_dir=folder, indices=[0, 1])
  assert '\n' not in str(error.value)


def test_batches_of_a_source_are_those_of_the_loaded_images(folder):
  """Photographs are decoded batch by batch; order, augmentation and indices are the same."""
  streamed = data.source('imagenet2012', 'test', folder)
  loaded = data.load('imagenet2012', 'test', data_dir=folder, indices=range(7))
  assert data.num_images(streamed) == data.num_images(loaded) == 7
  options = {'seed': 3, 'num_steps': 4, 'augment': 'crop_flip', 'start': 1}
  pairs = zip(
    data.batches(streamed, 3, **options, prefetch=2),
    data.batches(loaded, 3, **options),
    strict=True,
  )
  for a, b in pairs:
    for name in ('x', 'y', 'index'):
      np.testing.assert_array_equal(a[name], b[name])
      assert a[name].dtype == b[name].dtype
