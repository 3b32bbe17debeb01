"""Records of a list of images: what `certify` gives, image by image, in groups of one shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, data, evaluate, smoothing

KEY = jax.random.key(5)
NOISE = smoothing.gaussian(sigma=0.5)


def model_fn(x):
  flat = x.reshape(len(x), -1)
  return jnp.stack([flat[:, 0], flat[:, 1], flat[:, 2:].mean(1)], axis=1)


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (7, 2, 2, 1), np.uint8)
  return data.Images(pixels, rng.integers(0, 3, 7).astype(np.int32), np.arange(7) * 3 + 1)


def certified(images, **options):
  options = {'num_samples': 640, 'chunk': 50, 'num_selection': 60, **options}
  return [
    record for record, _ in evaluate.certified_records(KEY, model_fn, NOISE, images, **options)
  ]


@pytest.mark.parametrize('runner_up', [False, True])
def test_records_are_certificates(images, runner_up):
  """Groups of ceil(32 * 50 / 640) = 3 images, the last ragged."""
  found = certified(images, runner_up=runner_up)
  proof = certify.sampled(
    KEY, model_fn, NOISE, data.to_float(images.images), index=images.index, num_selection=60,
    num_samples=640, chunk=50, runner_up=runner_up,
  )  # fmt: skip
  assert [record['index'] for record in found] == images.index.tolist()
  assert [record['label'] for record in found] == images.labels.tolist()
  assert [record['predict'] for record in found] == proof.label.tolist()
  assert [record['radius'] for record in found] == proof.radius.tolist()
  assert sum(record['radius'] > 0 for record in found) >= 3
  for record in found:
    assert record['count'] + record['runner_up_count'] <= 640
    bound = certify.clopper_pearson(record['count'], 640, alpha=0.001)
    if not runner_up:
      assert record['radius'] == float(NOISE.radius(bound))


def test_a_part_has_the_records_of_the_whole(images):
  whole = certified(images)
  rest = data.Images(*(array[4:] for array in images))
  assert certified(rest) == whole[4:]


def test_predictions_are_those_of_predict(images):
  made = evaluate.predicted_records(KEY, model_fn, NOISE, images, num_samples=200, chunk=50)
  found = [record for record, _ in made]
  labels = certify.predict(
    KEY, model_fn, NOISE, data.to_float(images.images), index=images.index, num_samples=200,
    alpha=0.001, chunk=50,
  )  # fmt: skip
  assert [record['predict'] for record in found] == labels.tolist()
  assert {record['radius'] for record in found} == {0.0}
  assert all(0 <= record['count'] <= 200 for record in found)


def test_seconds_are_shares(images):
  made = evaluate.certified_records(KEY, model_fn, NOISE, images, num_samples=640, chunk=50)
  seconds = [seconds for _, seconds in made]
  assert len(seconds) == 7 and all(0 < s < 60 for s in seconds)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_samples': 9}, '`num_samples`=9 can never certify'),
    ({'num_samples': 2**31}, '`num_samples` must lie in 1 ..'),
    ({'alpha': 0.0}, '`alpha`'),
    ({'alpha': float('nan')}, '`alpha`'),
    ({'chunk': 0}, '`chunk` must lie in 1 ..'),
    ({'num_selection': 0}, '`num_selection`'),
  ],
)
def test_bad_arguments(images, options, message):
  with pytest.raises(ValueError, match=message):
    certified(images, **options)


def test_a_model_that_only_returns_nan_certifies_nothing(images):
  nan = lambda x: jnp.full((len(x), 3), jnp.nan)
  made = evaluate.certified_records(KEY, nan, NOISE, images, num_samples=640, chunk=50)
  assert {(record['predict'], record['radius']) for record, _ in made} == {(-1, 0.0)}


def test_images_must_be_grey_levels(images):
  """A float image would be divided by 255 twice, or not at all."""
  floats = images._replace(images=images.images.astype(np.float32))
  with pytest.raises(ValueError, match='`images` must be uint8'):
    certified(floats)
