"""Class folders: real photographs against Pillow, order and labels, and one line for what is amiss."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from certjax import data, models


def encoded(pixels, kind):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


def expected(path):
  """Resize(256), CenterCrop(224), written out."""
  image = Image.open(path).convert('RGB')
  width, height = image.size
  size = (256, 256 * height // width) if width < height else (256 * width // height, 256)
  pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
  top, left = round((size[1] - 224) / 2), round((size[0] - 224) / 2)
  return pixels[top : top + 224, left : left + 224]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """scikit-learn's two photographs: as they are, upright, grey, as JPEG and as PNG."""
  china, flower = load_sample_images().images
  root = tmp_path_factory.mktemp('photographs')
  files = {
    'train/temple/b.JPEG': encoded(china, 'JPEG'),
    'train/temple/a.png': encoded(china[:, 100:400], 'PNG'),
    'train/Flower/10.jpg': encoded(flower, 'JPEG'),
    'train/Flower/9.jpeg': encoded(flower[..., 0], 'JPEG'),
    'train/Flower/notes.txt': b'not a picture',
    'train/Flower/.hidden.png': b'not a picture',
    'train/.cache/x.png': b'not a picture',
    'validation/temple/z.png': encoded(china, 'PNG'),
    'validation/animal/y.png': encoded(flower[:200, :200], 'PNG'),
  }
  for name, content in files.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
  return root


def test_order_labels_and_pixels(folder):
  """Classes of all splits in one numbering, files sorted by name; pixels as Pillow makes them."""
  files = ['Flower/10.jpg', 'Flower/9.jpeg', 'temple/a.png', 'temple/b.JPEG']
  images = data.load('imagefolder', 'train', data_dir=folder, indices=range(4))
  assert images.images.shape == (4, 224, 224, 3) and images.images.dtype == np.uint8
  np.testing.assert_array_equal(images.labels, [0, 0, 2, 2])
  pixels = [expected(folder / 'train' / name) for name in files]
  np.testing.assert_array_equal(images.images, pixels)
  assert len({array.tobytes() for array in pixels}) == 4
  test = data.source('imagefolder', 'test', folder)
  assert [label for _, label in test.examples([1, 0])] == [2, 1]
  np.testing.assert_array_equal(test[0][0], expected(folder / 'validation/animal/y.png'))


def test_number_of_classes(folder):
  assert data.dataset('imagefolder', folder).num_classes == 3
  assert data.source('imagefolder', 'test', folder).spec.num_classes == 3
  assert data.dataset('imagefolder')[2:4] == ((224, 224, 3), 1000)
  assert data.dataset('imagefolder').mean == data.dataset('imagenet2012').mean


def test_class_folders_alone_are_the_test_split(folder):
  alone = folder / 'train'
  assert len(data.source('imagefolder', 'test', alone)) == 4
  assert data.dataset('imagefolder', alone).num_classes == 2
  with pytest.raises(ValueError, match='has no train split: put class folders into .*train'):
    data.source('imagefolder', 'train', alone)


@pytest.mark.parametrize('name', ['val', 'test', 'validation'])
def test_names_of_the_test_split(tmp_path, folder, name):
  (tmp_path / name / 'cat').mkdir(parents=True)
  (tmp_path / name / 'cat' / '1.png').write_bytes((folder / 'train/temple/a.png').read_bytes())
  assert len(data.source('imagefolder', 'test', tmp_path)) == 1


def test_training_batches(folder):
  source = data.source('imagefolder', 'train', folder)
  (batch,) = data.batches(source, 3, seed=0, num_steps=1)
  for x, y, index in zip(batch['x'], batch['y'], batch['index'], strict=True):
    pixels, label = source[int(index)]
    assert y == label and np.array_equal(x, pixels)


@pytest.mark.parametrize('content', [b'', b'\xff\xd8no', None], ids=['empty', 'no JPEG', 'cut off'])
def test_a_corrupt_picture_is_named(tmp_path, folder, content):
  good = (folder / 'train/temple/b.JPEG').read_bytes()
  (tmp_path / 'cat').mkdir()
  (tmp_path / 'cat' / '1.jpg').write_bytes(good)
  (tmp_path / 'cat' / '2.jpg').write_bytes(good[:5000] if content is None else content)
  with pytest.raises(ValueError, match='cannot read .*cat/2.jpg: .* Repair or delete it') as error:
    data.load('imagefolder', 'test', data_dir=tmp_path, indices=[0, 1])
  assert '\n' not in str(error.value)


def test_directories_that_are_none(tmp_path):
  for wrong in (None, tmp_path / 'nowhere'):
    with pytest.raises(ValueError, match='`data_dir` must name a directory of class folders, got'):
      data.source('imagefolder', 'test', wrong)
  with pytest.raises(ValueError, match='has no class folders: DIR/train/CLASS'):
    data.source('imagefolder', 'test', tmp_path)
  (tmp_path / 'cat').mkdir()
  with pytest.raises(ValueError, match='holds no image: .jpeg, .jpg, .png in class folders'):
    data.source('imagefolder', 'test', tmp_path)
  with pytest.raises(ValueError, match='nothing to prepare, pass `--data-dir DIR`'):
    data.prepare('imagefolder', tmp_path)


def test_photographs_through_a_network(folder):
  """224 pixels end to end; a picture's logits depend on it alone."""
  spec = data.dataset('imagefolder', folder)
  options = {'num_classes': spec.num_classes, 'mean': spec.mean, 'std': spec.std, 'width': 8}
  module = models.build('resnet18-imagenet', **options)
  images = data.load('imagefolder', 'train', data_dir=folder, indices=[0, 3])
  x = data.to_float(images.images)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  rng = np.random.default_rng(0)
  draw = lambda leaf: np.abs(rng.normal(0, 0.3, leaf.shape)).astype(np.float32)
  model_fn = jax.jit(models.bind(module, jax.tree.map(draw, shapes)))
  logits = np.asarray(model_fn(x))
  assert logits.shape == (2, 3) and np.isfinite(logits).all() and not np.allclose(*logits)
  np.testing.assert_allclose(model_fn(x[::-1].copy()), logits[::-1], rtol=1e-4)
