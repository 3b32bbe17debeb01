"""Class folders: real photographs against Pillow, order and labels, and one line for what is amiss."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from certjax import data, models
from certjax.data import _batches, _photograph


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


def test_windows_lie_inside_and_have_the_recipes_laws():
  """Area uniform in 8% .. 100%, aspect log-uniform in 3/4 .. 4/3; all places reached."""
  rng = np.random.default_rng(0)
  boxes = np.array([_photograph.window(640, 427, rng.random(40).tolist()) for _ in range(4_000)])
  left, top, right, bottom = boxes.T
  assert (left >= 0).all() and (top >= 0).all() and (right <= 640).all() and (bottom <= 427).all()
  area, aspect = (right - left) * (bottom - top) / (640 * 427), (right - left) / (bottom - top)
  assert 0.079 < area.min() < 0.085
  assert 0.87 < area.max() < 0.89  # Of a 640 x 427 photograph, aspect 4/3 covers 0.8896 at most.
  assert 0.74 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.345
  small = area < 0.5  # Wholly accepted there: 0.5 / 1.5 fits both sides, so uniform.
  assert abs(np.mean(area[small]) - 0.29) < 0.01  # Standard error 0.003.
  assert abs(np.mean(np.log(aspect[small]))) < 0.015  # Standard error 0.004.
  free = small & (right - left < 640)
  place = left[free] / (640 - (right - left)[free])
  assert abs(place.mean() - 0.5) < 0.03 and place.min() == 0 and place.max() == 1


@pytest.mark.parametrize(
  'size, box', [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))]
)
def test_a_strip_gets_its_centre(size, box):
  """No draw of that aspect fits a strip whole: torchvision's fallback, aspect 4/3 or 3/4."""
  assert _photograph.window(*size, [1 - 1e-9] * 40) == box


def test_training_crops_at_a_random_place_and_size(folder):
  """ImageNet's recipe on real photographs: each a window, resized alone, half of them mirrored."""
  source = data.source('imagefolder', 'train', folder)
  options = {'seed': 1, 'augment': 'random_resized_crop'}
  batches = list(data.batches(source, 2, num_steps=40, **options))
  files = ['Flower/10.jpg', 'Flower/9.jpeg', 'temple/a.png', 'temple/b.JPEG']
  photographs = [Image.open(folder / 'train' / name).convert('RGB') for name in files]
  mirrored, seen = 0, set()
  for step, batch in enumerate(batches):
    words = _batches._words(1, step // 2, _batches._AUGMENTATION, 4)
    for x, i in zip(batch['x'], batch['index'], strict=True):
      *numbers, flip = _photograph._uniform(words[i], 41)
      whole = photographs[i]
      cut = whole.crop(_photograph.window(*whole.size, numbers))
      pixels = np.asarray(cut.resize((224, 224), Image.Resampling.BILINEAR))
      np.testing.assert_array_equal(x, pixels[:, ::-1] if flip < 0.5 else pixels)
      mirrored, seen = mirrored + (flip < 0.5), seen | {x.tobytes()}
  assert len(seen) == 80 and 20 < mirrored < 60  # Outside: 1e-5.
  resumed = next(data.batches(source, 2, start=7, **options))
  np.testing.assert_array_equal(resumed['x'], batches[7]['x'])
  alone = next(data.batches(source, 2, start=7, rows=[1], **options))
  np.testing.assert_array_equal(alone['x'], batches[7]['x'][1:])
  four = next(data.batches(source, 4, **options))
  by_index = {int(i): x for b in batches[:2] for x, i in zip(b['x'], b['index'], strict=True)}
  for x, i in zip(four['x'], four['index'], strict=True):
    np.testing.assert_array_equal(x, by_index[int(i)])


def test_random_crops_are_of_photographs(folder):
  images = data.load('imagefolder', 'train', data_dir=folder, indices=range(4))
  with pytest.raises(ValueError, match='is for photographs that are decoded batch by batch'):
    data.batches(images, 2, seed=0, augment='random_resized_crop')


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
