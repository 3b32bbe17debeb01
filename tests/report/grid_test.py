"""The picture of attacks: its size, every pixel of it, and what it refuses."""

import numpy as np
import pytest
from PIL import Image

from certjax import report


def shown(shape, count=2, title='pgd', seed=0):
  x, delta = np.random.default_rng(seed).uniform(0.25, 0.5, (2, count, *shape)).astype(np.float32)
  index = np.arange(count)
  return report.Shown(title, index, index, index + 1, x, np.float32(x + delta - 0.25))


def pixels(path):
  with Image.open(path) as file:
    assert file.format == 'PNG'
    return np.asarray(file.convert('RGB'))


def places(picture, images):
  """How often, and at which rows, the magnified images stand side by side in the picture."""
  levels = np.rint(255 * np.asarray(images, np.float64)).astype(np.uint8)
  times = 112 // max(images.shape[1:3])
  levels = levels.repeat(times, axis=1).repeat(times, axis=2).repeat(3 // images.shape[-1], axis=3)
  height, width = levels.shape[1:3]
  cut = lambda y, n: picture[y : y + height, 130 + n * (width + 4) :][:, :width]
  return [
    y
    for y in range(len(picture) - height + 1)
    if all(np.array_equal(cut(y, n), level) for n, level in enumerate(levels))
  ]


@pytest.mark.parametrize('shape', [(8, 8, 1), (16, 28, 3)])
def test_every_pixel_is_that_of_the_arrays(tmp_path, shape):
  attacks = [shown(shape, 2), shown(shape, 3, 'stadv', seed=1)]
  attacks[1].adversarials[0, 0, 0] = attacks[1].originals[0, 0, 0] + 0.4  # Sets its scale.
  report.plot_attacked(attacks, tmp_path / 'grid.png', num_images=4)
  picture = pixels(tmp_path / 'grid.png')
  times = 112 // max(shape[:2])
  height, width = times * shape[0], times * shape[1]
  block = 24 + 16 + 3 * (height + 4)
  assert picture.shape == (2 * block, 130 + 4 * (width + 4), 3)
  assert picture.shape[1::-1] == report.grid_pixels(2, 4, shape)
  for number, attack in enumerate(attacks):
    delta = np.float64(attack.adversarials) - attack.originals
    scaled = 0.5 + delta * (0.5 / np.abs(delta).max())
    assert np.isclose(scaled.max(), 1) or np.isclose(scaled.min(), 0)
    rows = [attack.originals, attack.adversarials, scaled]
    top = number * block + 40
    for row, images in enumerate(rows):
      assert places(picture, images) == [top + row * (height + 4)]
  # Texts stand beside the images alone; the fourth place is empty.
  assert (picture[:, 130 + 3 * (width + 4) :] == 255).all()
  assert (picture[:block, :130] < 128).any() and (picture[24:40, 130 : 130 + width] < 128).any()


def test_what_stands_beside_the_rows(tmp_path, monkeypatch):
  from matplotlib.figure import Figure

  texts, write = [], Figure.text
  spy = lambda self, x, y, s, **style: (texts.append(s), write(self, x, y, s, **style))
  monkeypatch.setattr(Figure, 'text', spy)
  attack = shown((8, 8, 1), 2, 'pgd, linf 0.1 (pixel value)')._replace(predict=np.array([7, -1]))
  attack.adversarials[:] = attack.originals
  attack.adversarials[1, 2, 3] += 0.125
  report.plot_attacked([attack], tmp_path / 'grid.png', num_images=2)
  arrow = '\N{RIGHTWARDS ARROW}'
  assert texts == [
    'pgd, linf 0.1 (pixel value)', f'0: 0 {arrow} 7', f'1: 1 {arrow} -', 'original', 'adversarial',
    'difference\ntimes 4',
  ]  # fmt: skip


@pytest.mark.parametrize(
  'attacks, said',
  [
    ([], '`attacks` is empty'),
    ([shown((8, 8, 1), 0)], 'pgd: the attack broke no image'),
    ([shown((8, 8, 1), 3)], '`num_images` must be at least its 3 images, got 2'),
    ([shown((8, 8, 2))], 'with 1 or 3 channels'),
    ([shown((8, 8, 1)), shown((9, 8, 1), title='ddn')], r'ddn: `originals` must have shape \(2, 8, 8, 1\)'),
    ([shown((8, 8, 1))._replace(adversarials=np.full((2, 8, 8, 1), np.nan))], '`adversarials` must lie in'),
  ],
)  # fmt: skip
def test_refusals(tmp_path, attacks, said):
  with pytest.raises(ValueError, match=said):
    report.plot_attacked(attacks, tmp_path / 'grid.png', num_images=2)
  assert not (tmp_path / 'grid.png').exists()
