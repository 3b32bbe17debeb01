"""Vision transformers that do not compute hidden tokens (smoothed vision transformers).

Of an image that is seen through a window most tokens hold nothing. Attention over a set of tokens needs no
grid, so they are dropped: the visible ones, first in order, fill a fixed number of places, and attention
ignores the places that are left. The logits are those of the whole image with hidden tokens masked
(Salman, Jain, Wong & Madry 2022).
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from certjax.layers import conv_general_dilated
from certjax.models._normalize import Normalize

_EPSILON = 1e-6  # Of layer normalisation.
_CHANNELS = {1: False, 2: True, 3: False, 4: True}  # Of an image: whether the last is a mask.


class ViT(nn.Module):
  """patches -> + positions, class token -> depth x [attention, 2 dense layers] -> logits of the class token

  Layers are normalised first: z + attention(norm z), then z + dense(gelu(dense(norm z))). Images of 1 or 3
  channels are seen as a whole. Of 2 or 4 channels the last says which pixels are seen, not zero, as
  `smoothing.bands(null='mask')` shows them: the others are the mean (0 after normalisation), and tokens
  without a seen pixel take no part.

  Attributes:
    num_classes: K.
    width: of a token; a multiple of `heads`.
    depth: blocks.
    heads: of attention.
    patch: side of a token in pixels; it divides height and width of the image.
    visible: tokens that are computed, the most that a window shows (`visible_tokens`); images that show
      more have NaN logits, and so vote for nobody. None computes all.
    mean, std: normalisation of each channel but the mask.

  Raises:
    ValueError: when called, for images or sizes that do not fit.

  Example:
    >>> module = ViT(10, width=16, depth=1, heads=2, patch=4, visible=4)
    >>> x = jnp.zeros((2, 8, 8, 2))
    >>> jax.eval_shape(module.init_with_output, jax.random.key(0), x)[0].shape
    (2, 10)

  References:
    Dosovitskiy et al. 2021 (arXiv:2010.11929); Salman et al. 2022 (arXiv:2110.07719).
  """

  num_classes: int
  width: int = 192
  depth: int = 12
  heads: int = 3
  patch: int = 16
  visible: int | None = None
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float32[B, K]."""
    del train
    self._check(x)
    x, mask = self._normalized(x)
    embed = nn.Conv(
      self.width, (self.patch, self.patch), strides=self.patch, padding='VALID',
      conv_general_dilated=conv_general_dilated, name='patch_embed_proj',
    )  # fmt: skip
    tokens = embed(x).reshape(len(x), -1, self.width)
    positions = self.param('pos_embed', _small, (1, tokens.shape[1] + 1, self.width))
    positions = positions.astype(tokens.dtype)
    tokens, seen, whole = _kept(tokens + positions[:, 1:], self._seen(mask), self.visible)
    first = self.param('cls_token', _small, (1, 1, self.width)).astype(tokens.dtype)
    first = jnp.broadcast_to(first + positions[:, :1], (len(x), 1, self.width))
    tokens = jnp.concatenate([first, tokens], axis=1)
    seen = None if seen is None else jnp.pad(seen, ((0, 0), (1, 0)), constant_values=True)
    for index in range(self.depth):
      tokens = _Block(self.heads, name=f'blocks_{index}')(tokens, seen)
    tokens = _LayerNorm(name='norm')(tokens)[:, 0]
    logits = nn.Dense(self.num_classes, name='head')(tokens).astype(jnp.float32)
    return logits if whole is None else jnp.where(whole[:, None], logits, jnp.nan)

  def _normalized(self, x):
    """The normalised image, 0 where it is hidden, and its mask, or None."""
    channels = x.shape[-1]
    if not _CHANNELS[channels]:
      return Normalize(self.mean, self.std)(x), None
    x, mask = x[..., :-1], x[..., -1:]
    seen = mask > 0
    x = Normalize(self.mean[: channels - 1], self.std[: channels - 1])(x)
    return jnp.where(seen, x, jnp.zeros((), x.dtype)), seen

  def _seen(self, mask):
    """bool[B, T], the tokens that hold a seen pixel."""
    if mask is None:
      return None
    size, (height, width) = self.patch, mask.shape[1:3]
    mask = mask.reshape(len(mask), height // size, size, width // size, size)
    return mask.any(axis=(2, 4)).reshape(len(mask), -1)

  def _check(self, x):
    if x.ndim != 4 or x.shape[-1] not in _CHANNELS:
      raise ValueError(
        f'a vision transformer takes images of 1 or 3 channels, or these and a mask of the seen pixels, got '
        f"shape {x.shape[1:]}: show bands and blocks with null='mask'."
      )
    if x.shape[1] % self.patch or x.shape[2] % self.patch:
      raise ValueError(
        f'`patch` must divide height and width of the images, got patch={self.patch}, shape {x.shape[1:]}: '
        f'resize them, or take another architecture.'
      )
    if self.width % self.heads or (self.visible is not None and self.visible < 1):
      raise ValueError(
        f'`heads` must divide `width`, and `visible` be 1 or more, got heads={self.heads}, '
        f'width={self.width}, visible={self.visible}.'
      )


class _Block(nn.Module):
  """z + attention(norm z), then z + dense(gelu(dense(norm z)))."""

  heads: int

  @nn.compact
  def __call__(self, z, seen):
    """float[B, T, W] and bool[B, T], the tokens that are looked at (None: all) -> float[B, T, W]."""
    width = z.shape[-1]
    qkv = nn.Dense(3 * width, name='attn_qkv')(_LayerNorm(name='norm1')(z))
    mixed = _attention(qkv.reshape(*z.shape[:2], 3, self.heads, width // self.heads), seen)
    z = z + nn.Dense(width, name='attn_proj')(mixed.reshape(z.shape))
    hidden = nn.Dense(4 * width, name='mlp_fc1')(_LayerNorm(name='norm2')(z))
    return z + nn.Dense(width, name='mlp_fc2')(nn.gelu(hidden, approximate=False))


class _LayerNorm(nn.Module):
  """(z - mean) / sqrt(variance + 1e-6) * scale + bias over the width, in float32 whatever z is."""

  @nn.compact
  def __call__(self, z):
    scale = self.param('scale', nn.initializers.ones, z.shape[-1:])
    bias = self.param('bias', nn.initializers.zeros, z.shape[-1:])
    centred = z.astype(jnp.float32)
    centred = centred - centred.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    whole = (centred * lax.rsqrt(variance + _EPSILON)).astype(z.dtype)
    return whole * scale[None, None] + bias[None, None]


def _attention(qkv, seen):
  """float[B, T, 3, h, D] and bool[B, T], or None -> float[B, T, h, D]; the softmax in float32."""
  q, k, v = jnp.moveaxis(qkv, 2, 0)
  scores = jnp.einsum('bqhd,bkhd->bhqk', q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
  if seen is not None:
    scores = jnp.where(seen[:, None, None], scores, -jnp.inf)  # The class token always is.
  return jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores).astype(v.dtype), v)


def visible_tokens(shape, *, patch, window) -> int:
  r"""The most tokens that a window shows a pixel of, wherever it lies and around the image's ends.

    prod over axes of   min(n / P, ceil((s - 1) / P) + 1)

  Args:
    shape: (H, W, ...) of the images; each length n is a multiple of P.
    patch: P, side of a token.
    window: (height, width) s of the window in pixels; None spans the axis.

  Example:
    >>> visible_tokens((28, 28), patch=4, window=(None, 4))  # 7 rows of 2 tokens.
    14
  """
  counts = [length // patch for length in shape[:2]]
  return math.prod(
    count if size is None else min(count, -(-(size - 1) // patch) + 1)
    for count, size in zip(counts, window, strict=True)
  )


def _kept(tokens, seen, visible):
  """The tokens to compute, which of them to look at, and bool[B], images of which none is lost.

  Args:
    tokens: float[B, T, W].
    seen: bool[B, T], or None for all.
    visible: as in `ViT`.
  """
  if seen is None or visible is None or visible >= tokens.shape[1]:
    return tokens, seen, None
  order = jnp.argsort(~seen, axis=1, stable=True)[:, :visible]
  tokens = jnp.take_along_axis(tokens, order[..., None], axis=1)
  return tokens, jnp.take_along_axis(seen, order, axis=1), seen.sum(axis=1) <= visible


_small = nn.initializers.normal(0.02)

_SIZES = {
  'tiny': {'width': 192, 'heads': 3},
  'small': {'width': 384, 'heads': 6},
  'base': {'width': 768, 'heads': 12},
}
_MNIST = {'width': 64, 'depth': 3, 'heads': 4, 'patch': 4}
_CIFAR = {**_SIZES['tiny'], 'patch': 4}


def _for_bands(fields, shape, width):
  return {
    **fields,
    'visible': visible_tokens(shape, patch=fields.get('patch', ViT.patch), window=(None, width)),
  }


VITS = {
  **{f'vit-{size}': fields for size, fields in _SIZES.items()},
  **{f'vit-{size}-band19': _for_bands(fields, (224, 224), 19) for size, fields in _SIZES.items()},
  'vit-tiny-cifar': _CIFAR,
  'vit-tiny-cifar-band4': _for_bands(_CIFAR, (32, 32), 4),
  'vit-mnist': _MNIST,
  'vit-mnist-band4': _for_bands(_MNIST, (28, 28), 4),
}
"""Name -> fields of `ViT`: the published widths (DeiT, arXiv:2012.12877), and small ones for small images.
'-band4' drops tokens that bands of up to 5 columns hide (of tokens of 4 pixels), '-band19' those of
up to 33 (of 16)."""
