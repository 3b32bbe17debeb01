"""Replaced windows and pixels: the reference's values, every filling of small images, rounding, bad input."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import bounds, models, parallel
from certjax.bounds import _network, _patch
from certjax.certify import ABSTAIN

pytestmark = pytest.mark.usefixtures('many_programs')
SHAPE, SIDE = (4, 4, 1), 2
RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (3, *SHAPE))
SPEC = bounds.margins(np.array([0, 2, 1]), 3)
DOUBLE = pytest.mark.usefixtures('float64')


@pytest.fixture
def float64():
  with parallel.x64():
    yield


@functools.cache
def dense(*sizes, seed=1):
  """A network of dense layers with ReLU, the same in float32 and float64; of one layer it is linear."""
  rng = np.random.default_rng(seed)
  layers = [
    (np.float32(rng.normal(0, 1 / np.sqrt(a), (a, b))), np.float32(rng.normal(0, 0.1, b)))
    for a, b in itertools.pairwise(sizes)
  ]

  def model_fn(x):
    x = (x - 0.5).reshape(len(x), -1) / 0.25
    for i, (w, b) in enumerate(layers):
      x = x @ w.astype(x.dtype) + b.astype(x.dtype)[None]
      x = jax.nn.relu(x) if i < len(layers) - 1 else x
    return x

  return model_fn


def least(model_fn, images, spec):
  """The least value of each row over some images."""
  logits = model_fn(jnp.asarray(images))
  return np.asarray(jnp.min(logits @ jnp.asarray(spec, logits.dtype).T, axis=0))


def fillings(image, places, values):
  """The image with every choice of `values` at its pixels `places`: [.., 2] positions, all channels."""
  channels = image.shape[-1]
  choices = np.array(list(itertools.product(values, repeat=len(places) * channels)))
  filled = np.repeat(image[None], len(choices), axis=0)
  rows, columns = np.transpose(places)
  filled[:, rows, columns] = choices.reshape(len(choices), len(places), channels)
  return filled


def window(place, side=SIDE):
  return [(place[0] + i, place[1] + j) for i in range(side) for j in range(side)]


@functools.cache
def compiled(bound, model_fn, size, outward=False):
  """The bound as one program of (x, spec, eps)."""
  return jax.jit(lambda x, spec, eps=1.0: bound(model_fn, x, size, spec, eps=eps, outward=outward))


@DOUBLE
def test_the_reference():
  weights = np.array([1, -2, 0.5, 3, -1, 2, 0.25, -0.5, 1])
  x = np.array([0.2, 0.8, 0.5, 0.1, 0.9, 0.3, 0.6, 0.4, 0.7]).reshape(1, 3, 3, 1)
  model_fn = lambda x: x.reshape(len(x), -1) @ weights[:, None]
  lower, upper = compiled(bounds.patch_interval, model_fn, 2)(x, None)
  np.testing.assert_allclose(lower[0, :, 0], [-1.5, -1.85, -1.35, -2.2], atol=1e-12)
  np.testing.assert_allclose(upper[0, :, 0], [5.5, 3.65, 3.4, 2.3], atol=1e-12)
  lower, upper = compiled(bounds.sparse_interval, model_fn, 2)(x, None)
  np.testing.assert_allclose([lower[0, 0], upper[0, 0]], [-1.8, 3.8], atol=1e-12)


@DOUBLE
@pytest.mark.parametrize('sizes', [(16, 3), (16, 8, 5, 3)])
def test_no_filling_of_a_window_goes_below_the_bound(sizes):
  """All 3^4 grey fillings at all places; a linear function reaches its bound at a corner."""
  model_fn = dense(*sizes)
  bound = compiled(bounds.patch_interval, model_fn, SIDE)
  lower, upper = bound(X, SPEC)
  places = bounds.patch_locations(SHAPE, SIDE)
  assert lower.shape == (3, 9, 2) and len(places) == 9
  for i, place in itertools.product(range(len(X)), range(9)):
    images = fillings(X[i], window(places[place]), (0, 0.5, 1))
    truth = least(model_fn, images, SPEC[i]), -least(model_fn, images, -SPEC[i])
    assert (lower[i, place] <= truth[0] + 1e-12).all()
    assert (upper[i, place] >= truth[1] - 1e-12).all()
    if len(sizes) == 2:
      np.testing.assert_allclose(lower[i, place], truth[0], atol=1e-12)
      np.testing.assert_allclose(upper[i, place], truth[1], atol=1e-12)
  logits = jnp.einsum('bsk,bk->bs', SPEC.astype(X.dtype), model_fn(jnp.asarray(X)))
  for side in bound(X, SPEC, 0.0):  # Nothing may change: the forward pass.
    np.testing.assert_allclose(side, np.repeat(logits[:, None], 9, axis=1), atol=1e-12)


@DOUBLE
@pytest.mark.parametrize('sizes', [(18, 3), (18, 6, 3)])
def test_no_replaced_pixels_go_below_the_bound(sizes):
  """All pairs of 9 pixels of 2 channels, at all corners; a linear function reaches its bound."""
  x, model_fn = RNG.uniform(0, 1, (1, 3, 3, 2)), dense(*sizes)
  bound = compiled(bounds.sparse_interval, model_fn, 2)
  lower, upper = bound(x, SPEC[0])
  pixels = list(itertools.product(range(3), range(3)))
  images = [fillings(x[0], pair, (0, 1)) for pair in itertools.combinations(pixels, 2)]
  images = np.concatenate(images)
  truth = least(model_fn, images, SPEC[0]), -least(model_fn, images, -SPEC[0])
  assert (lower[0] <= truth[0] + 1e-12).all() and (upper[0] >= truth[1] - 1e-12).all()
  if len(sizes) == 2:
    np.testing.assert_allclose(lower[0], truth[0], atol=1e-12)
    np.testing.assert_allclose(upper[0], truth[1], atol=1e-12)
  logits = model_fn(jnp.asarray(x)) @ SPEC[0].astype(x.dtype).T
  for side in bound(x, SPEC[0], 0.0):  # Nothing may change: the forward pass.
    np.testing.assert_allclose(side, logits, atol=1e-12)


@DOUBLE
@pytest.mark.parametrize('name', ['dense', 'conv', 'skip'])
def test_all_places_at_once_are_one_box_each(name, small):
  """Closed form or not, in chunks that do not divide the places, and for chosen places of each image."""
  weights = np.random.default_rng(3).normal(0, 0.3, (32, 3))
  model_fn = {
    'dense': dense(32, 7, 3),
    'conv': small.networks['conv'][0],
    'skip': lambda x: dense(32, 7, 3)(x) + x.reshape(len(x), -1) @ weights,
  }[name]
  places = bounds.patch_locations((4, 4, 2), (1, 3))
  x = np.random.default_rng(4).uniform(0, 1, (2, 4, 4, 2))
  run = jax.jit(
    lambda x, eps, places: bounds.patch_interval(
      model_fn, x, (1, 3), eps=eps, locations=places, chunk=3
    )
  )
  mask = np.zeros((8, 4, 4, 1), bool)
  for number, (row, column) in enumerate(places):
    mask[number, row, column : column + 3] = True
  boxed = jax.jit(lambda low, high: bounds.interval(model_fn, bounds.box(low, high)))
  for eps, i in itertools.product((1.0, 0.3), range(2)):
    found = run(x, eps, places)
    low, high = np.maximum(x[i] - eps, 0), np.minimum(x[i] + eps, 1)
    expected = boxed(np.where(mask, low, x[i]), np.where(mask, high, x[i]))
    for side, other in zip(found, expected, strict=True):
      np.testing.assert_allclose(side[i], other, atol=1e-9)
  chosen = np.array([[0, 7, 3], [5, 5, 1]])
  some = run(x, eps, places[chosen])
  for side, whole in zip(some, found, strict=True):
    np.testing.assert_allclose(side, np.take_along_axis(whole, chosen[..., None], 1), atol=1e-9)


@pytest.mark.usefixtures('optimized')
def test_rounding_is_paid_for():
  """Outward float32 bounds hold for the network in float64; others do not always."""
  model_fn, x = dense(16, 8, 3), X.astype(np.float32)
  for bound, size in ((bounds.patch_interval, SIDE), (bounds.sparse_interval, 3)):
    outward = compiled(bound, model_fn, size, outward=True)(x, None)
    bound = compiled(bound, model_fn, size)
    plain = bound(x, None)
    with parallel.x64():
      lower, upper = map(np.asarray, bound(x.astype(np.float64), None))
    outward, plain = (
      [np.asarray(side, np.float64) for side in found] for found in (outward, plain)
    )
    assert (outward[0] <= lower).all() and (outward[1] >= upper).all()
    assert (plain[0] > lower).any()
    np.testing.assert_allclose(outward[0], lower, atol=2e-3)  # About 200 roundings of 6e-8, twice.


@pytest.mark.usefixtures('optimized')
def test_rounding_of_the_first_stage_is_paid_for():
  """At a black image without offsets nothing else is widened that could pay for it."""
  weights = np.random.default_rng(6).normal(0, 1, (16, 40)).astype(np.float32)
  model_fn = lambda x: x.reshape(len(x), -1) @ weights.astype(x.dtype)

  def box(dtype, outward):
    black = jnp.zeros(SHAPE, dtype)
    stage = _patch._first_stage(_network.trace(model_fn, black))
    found = _patch._sparse_box(stage, 12, black, black, jnp.ones(SHAPE, dtype), outward)
    return [np.asarray(side, np.float64) for side in found]

  with parallel.x64():
    lower, upper = box(jnp.float64, False)
  outward, plain = box(jnp.float32, True), box(jnp.float32, False)
  assert (outward[0] <= lower).all() and (outward[1] >= upper).all()
  assert (plain[0] > lower).any() and (plain[1] < upper).any()


@pytest.mark.usefixtures('optimized')
def test_a_certificate_to_the_last_ulp():
  """A linear margin that is positive by 1e-9 in the worst case is proved, at 0 it is not; nor by NaN."""
  weights = np.array([2.0, -1.0, 0.5, 1.0]).reshape(4, 1)
  x = np.array([1.0, 0.0, 1.0, 1.0]).reshape(1, 2, 2, 1)

  def forward(weights, threshold, x):
    return jnp.concatenate([x.reshape(len(x), -1) @ weights, 0 * x[:, 0, 0] + threshold], axis=1)

  model_fn = lambda threshold: jax.tree_util.Partial(forward, weights, np.array(threshold))
  for verify, size, worst in ((bounds.verify_patch, 1, 1.5), (bounds.verify_sparse, 2, 0.5)):
    assert verify(model_fn(worst - 1e-9), x, size).radius.tolist() == [size]
    proof = verify(model_fn(worst), x, size)
    assert proof.label.tolist() == [0] and proof.radius.tolist() == [0.0]
    broken = jax.tree_util.Partial(forward, weights * np.nan, np.array(0.0))
    for unknown in (model_fn(3.5), broken):  # A tie at the image itself, and NaN.
      proof = verify(unknown, x, size)
      assert proof.label.tolist() == [ABSTAIN] and proof.radius.tolist() == [0.0]


def test_the_model_has_its_parameters():
  module = models.build('mlp-255', num_classes=10)
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 202_735


@pytest.mark.parametrize('side', [0, 5, 1.5, -1, float('nan'), (2, 5)])
def test_bad_sides(side):
  for call in (bounds.patch_interval, bounds.verify_patch):
    with pytest.raises(ValueError, match='^`side` must be a whole number in 1 .. 4, got .*$'):
      call(dense(16, 3), X.astype(np.float32), side)


def test_bad_arguments():
  x, model_fn = X.astype(np.float32), dense(16, 8, 3)
  with pytest.raises(ValueError, match='`side` must be a number of pixels, or .height, width.'):
    bounds.patch_interval(model_fn, x, (1, 2, 3))
  with pytest.raises(ValueError, match='`pixels` must be a whole number in 0 .. 16, got 17'):
    bounds.sparse_interval(model_fn, x, 17)
  with pytest.raises(ValueError, match='one affine stage'):
    skip = lambda x: model_fn(x) + x.reshape(len(x), -1)[:, :3]
    bounds.sparse_interval(skip, x, 1)
  with pytest.raises(ValueError, match='`x` must lie in .0, 1., got 2.0 .. 2.0'):
    bounds.verify_patch(model_fn, 2 * np.ones((1, *SHAPE)), 1)
  with pytest.raises(ValueError, match='`locations` must be int'):
    bounds.patch_interval(model_fn, x, 1, locations=np.zeros(2))
  with pytest.raises(ValueError, match='`spec` must be .S, K. or .B, S, K. with K=3'):
    bounds.patch_interval(model_fn, x, 1, np.eye(4))
  with pytest.raises(ValueError, match="no bound is known for the primitive 'sin'"):
    bounds.verify_patch(lambda x: jnp.sin(model_fn(x)), x, 1)
