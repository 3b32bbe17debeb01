"""Checks on pixels and labels: the classic mistakes are refused by name, good input passes."""

import numpy as np
import pytest

from certjax import data

GOOD = np.linspace(0, 1, 2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)


def replaced(value, at=(1, 2, 3, 0)):
  x = GOOD.copy()
  x[at] = value
  return x


@pytest.mark.parametrize(
  'x',
  [
    GOOD,
    GOOD.astype(np.float64),
    GOOD.astype(np.float16),
    (GOOD * 255).astype(np.uint8),
  ],
)
def test_good_images_pass_unchanged(x):
  checked = data.check_images(x, shape=(4, 4, 3))
  assert checked.dtype == x.dtype
  np.testing.assert_array_equal(checked, x)


def test_jax_arrays_pass_bfloat16_too():
  import jax.numpy as jnp

  data.check_images(jnp.asarray(GOOD))
  data.check_images(jnp.asarray(GOOD, jnp.bfloat16))
  with pytest.raises(ValueError, match='divide by 255'):
    data.check_images(jnp.asarray(GOOD * 255, jnp.bfloat16))


@pytest.mark.parametrize(
  'x, words',
  [
    (GOOD * 255, ['divide by 255', 'at [0, 0, 0, 1]']),
    (GOOD * 2 - 1, ['[-1, 1]', '(x + 1) / 2', '-1.0 at [0, 0, 0, 0]']),
    ((GOOD - 0.45) / 0.22, ['mean and std']),
    (replaced(1.0001), ['np.clip', 'at [1, 2, 3, 0]']),
    (replaced(np.nan), ['no NaN', '[1, 2, 3, 0]', 'image 1']),
    (replaced(np.inf), ['inf at [1, 2, 3, 0]']),
    (GOOD[0], ['x[None]', '(4, 4, 3)']),
    (GOOD[..., 0], ['x[..., None]']),
    (GOOD[None], ['four axes']),
    (GOOD.transpose(0, 3, 1, 2), ['NCHW', 'x.transpose(0, 2, 3, 1)']),
    (GOOD[:0], ['at least one image']),
    ((GOOD * 255).astype(np.int64), ['int64', 'np.uint8']),
    (GOOD > 0.5, ['bool']),
    (np.array(['a']), ['<U1']),
  ],
)
def test_bad_images_are_named(x, words):
  with pytest.raises(ValueError) as error:
    data.check_images(x, name='queries')
  text = str(error.value)
  assert '`queries`' in text and '\n' not in text
  assert all(word in text for word in words), text


def test_another_shape_than_the_models():
  with pytest.raises(ValueError, match=r'\(H, W, C\) = \(8, 8, 3\), got shape \(2, 4, 4, 3\)'):
    data.check_images(GOOD, shape=(8, 8, 3))


def test_labels():
  checked = data.check_labels(np.array([0, 9], np.uint8), 10)
  assert checked.dtype == np.int32 and checked.tolist() == [0, 9]
  data.check_labels(np.zeros(0, int), 10)


@pytest.mark.parametrize(
  'y, words',
  [
    ([1, 5, 10], ['got 10 at [2]', 'subtract 1']),
    ([0, -1], ['got -1 at [1]']),
    ([0.0, 1.0], ['float64', 'astype']),
    (np.eye(3, dtype=int), ['(3, 3)', 'argmax']),
  ],
)
def test_bad_labels_are_named(y, words):
  with pytest.raises(ValueError) as error:
    data.check_labels(np.asarray(y), 10, name='targets')
  assert all(word in str(error.value) for word in ['`targets`', *words])


def test_to_float_is_correctly_rounded_and_refuses_floats():
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(data.to_float(levels), (levels / 255).astype(np.float32))
  assert data.to_float(levels).dtype == np.float32
  with pytest.raises(ValueError, match='uint8'):
    data.to_float(levels / 255)
