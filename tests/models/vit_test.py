"""Vision transformers: dropped tokens change nothing, hidden pixels are not seen, too many are refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, models, smoothing

SHAPE = (8, 12, 1)
FIELDS = {'num_classes': 3, 'width': 16, 'depth': 2, 'heads': 2, 'patch': 4}
FULL = models.ViT(**FIELDS, mean=(0.4,), std=(0.2,))
BANDS = smoothing.bands(width=3, shape=SHAPE, null='mask', top_one=True)


@jax.jit
def look(view, x, numbers):
  return jax.vmap(view, (None, 0))(x, numbers)


def seen(views):
  """Every view of a random image."""
  x = np.random.default_rng(0).uniform(0.1, 0.9, views.shape).astype(np.float32)
  return look(views.view, x, np.arange(views.num_views))


def variables():
  """Weights large enough for every token to matter."""
  made = jax.jit(FULL.init)(jax.random.key(0), jnp.zeros((1, *SHAPE[:2], 2)))
  leaves, tree = jax.tree.flatten(made)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [
    leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(tree, noisy)


WEIGHTS = variables()


@jax.jit
def run(model_fn, x):
  return model_fn(x)


def logits(x, **fields):
  return np.asarray(run(models.bind(FULL.clone(**fields), WEIGHTS), x))


@pytest.mark.parametrize('visible', [4, 5])
def test_dropped_tokens_change_no_logit(visible):
  """Bands of 3 columns show 2 or 4 of 6 tokens; places that are left over are not looked at."""
  x = seen(BANDS)
  whole = logits(x)
  np.testing.assert_allclose(logits(x, visible=visible), whole, atol=1e-5)
  assert np.ptp(whole, axis=0).min() > 0.05  # What is seen, and where, matters.


def test_too_many_tokens_vote_for_nobody():
  x = seen(BANDS)
  tokens = np.asarray(x[..., 1]).reshape(-1, 2, 4, 3, 4).any(axis=(2, 4)).sum(axis=(1, 2))
  assert set(tokens) == {2, 4}
  few = logits(x, visible=2)
  np.testing.assert_array_equal(np.isnan(few), np.repeat(tokens[:, None] > 2, 3, axis=1))
  np.testing.assert_allclose(few[tokens == 2], logits(x)[tokens == 2], atol=1e-5)
  proof = certify.enumerated(
    models.bind(FULL.clone(visible=1), WEIGHTS), BANDS, np.zeros((1, *SHAPE), np.float32), chunk=12
  )
  assert proof.label == certify.ABSTAIN and proof.radius == 0


def test_hidden_pixels_are_not_seen():
  """Not by their colour; and the mask goes through no normalisation."""
  x = np.array(seen(BANDS))
  hidden = x[..., 1] == 0
  other = x.copy()
  other[hidden, 0] = 7.0
  np.testing.assert_array_equal(logits(other), logits(x))
  np.testing.assert_array_equal(logits(other, visible=4), logits(x, visible=4))
  shown = np.where(x[..., 1:] > 0, (x[..., :1] - np.float32(0.4)) / np.float32(0.2), 0)
  by_hand = np.concatenate([shown, x[..., 1:]], axis=-1)
  raw = logits(by_hand, mean=(0.0, 9.0), std=(1.0, 9.0))
  np.testing.assert_allclose(raw, logits(x), atol=1e-4)


def test_an_image_without_a_mask_is_seen_as_a_whole():
  x = np.random.default_rng(2).uniform(size=(2, *SHAPE)).astype(np.float32)
  masked = np.concatenate([x, np.ones_like(x)], axis=-1)
  np.testing.assert_allclose(logits(x, visible=2), logits(masked), atol=1e-5)


def test_visible_tokens_of_all_windows():
  """All bands and blocks of a 12 x 8 image in tokens of 4, by looking at what their views show."""
  shape = (12, 8, 1)
  kinds = [(smoothing.bands(width=s, shape=shape, null='mask'), (None, s)) for s in range(1, 8)]
  kinds += [(smoothing.blocks(size=s, shape=shape, null='mask'), (s, s)) for s in range(1, 8)]
  for views, window in kinds:
    tokens = (
      np.asarray(seen(views))[..., 1].reshape(-1, 3, 4, 2, 4).any(axis=(2, 4)).sum(axis=(1, 2))
    )
    assert models.visible_tokens(shape, patch=4, window=window) == tokens.max()


@pytest.mark.parametrize(
  'name, shape, width, most',
  [
    ('vit-mnist', (28, 28, 2), 4, 5),
    ('vit-tiny-cifar', (32, 32, 4), 4, 5),
    ('vit-base', (224, 224, 4), 19, 33),
  ],
)
def test_registered_capacities(name, shape, width, most):
  """Enough for all bands of the name's width and up to `most` columns, and no more tokens than that."""
  module = models.build(f'{name}-band{width}', num_classes=10)
  size, (height, columns) = module.patch, shape[:2]
  shows = lambda s: max(
    len({(start + i) % columns // size for i in range(s)}) * height // size
    for start in range(columns)
  )
  assert module.visible == shows(width) == shows(most) < shows(most + 1)
  assert module.clone(visible=None) == models.build(name, num_classes=10)


@pytest.mark.parametrize(
  'name, expected', [('tiny', 5_717_416), ('small', 22_050_664), ('base', 86_567_656)]
)
def test_number_of_parameters_of_deit(name, expected):
  module = models.build(f'vit-{name}', num_classes=1000, mean=(0.5,) * 3, std=(0.2,) * 3)
  x = jnp.zeros((1, 224, 224, 3))
  made = jax.eval_shape(module.init, jax.random.key(0), x)
  assert sum(leaf.size for leaf in jax.tree.leaves(made)) == expected


def attention(z, weights):
  """One block in numpy, head by head, token by token."""
  norm = lambda z, w: (
    (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6) * w['scale']
    + w['bias']
  )
  dense = lambda z, w: z @ w['kernel'] + w['bias']
  qkv = dense(norm(z, weights['norm1']), weights['attn_qkv']).reshape(len(z), 3, 2, 8)
  mixed = np.zeros((len(z), 2, 8))
  for token, head in itertools.product(range(len(z)), range(2)):
    scores = qkv[:, 1, head] @ qkv[token, 0, head] / np.sqrt(8)
    share = np.exp(scores - scores.max())
    mixed[token, head] = share / share.sum() @ qkv[:, 2, head]
  z = z + dense(mixed.reshape(len(z), 16), weights['attn_proj'])
  hidden = dense(norm(z, weights['norm2']), weights['mlp_fc1'])
  gelu = hidden * np.asarray(jax.scipy.stats.norm.cdf(hidden.astype(np.float32)))
  return z + dense(gelu, weights['mlp_fc2'])


def test_a_block_against_plain_numpy():
  from certjax.models import _vit

  z = np.random.default_rng(4).normal(size=(1, 5, 16)).astype(np.float32)
  weights = jax.tree.map(np.asarray, WEIGHTS['params']['blocks_0'])
  block = _vit._Block(2)
  found = jax.jit(block.apply)({'params': weights}, z, None)
  np.testing.assert_allclose(found[0], attention(z[0], weights), atol=1e-4)


def test_logits_are_float32():
  model_fn = models.in_bfloat16(models.bind(FULL.clone(visible=4), WEIGHTS))
  rounded = run(model_fn, seen(BANDS))
  assert rounded.dtype == jnp.float32
  np.testing.assert_allclose(rounded, logits(seen(BANDS)), atol=0.3)


@pytest.mark.parametrize(
  'fields, shape, said',
  [
    ({}, (8, 8, 6), r"images of 1 or 3 channels, .* got shape \(8, 8, 6\): show .* null='mask'"),
    ({}, (8, 10, 1), '`patch` must divide height and width of the images, got patch=4'),
    ({'heads': 3}, (8, 8, 1), '`heads` must divide `width`'),
    ({'visible': 0}, (8, 8, 2), '`visible` be 1 or more'),
  ],
)
def test_what_does_not_fit(fields, shape, said):
  module = models.ViT(**{**FIELDS, **fields})
  with pytest.raises(ValueError, match=said) as error:
    module.init(jax.random.key(0), jnp.zeros((1, *shape)))
  assert '\n' not in str(error.value)
