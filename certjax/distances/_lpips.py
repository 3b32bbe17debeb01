"""LPIPS: two images are as far apart as a network's activations are (Zhang et al. 2018).

At every position of a layer the activations over channels are scaled to length 1; differences are
averaged over positions and summed over layers. Written as one vector phi(x), the distance is
Euclidean, d(x1, x2) = |phi(x1) - phi(x2)|: what perceptual attacks and PAT (Laidlaw et al. 2021) use.

Where all channels are 0, as happens after ReLU, phi is 0 and has gradient 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from certjax.distances._lp import length
from certjax.distances._pixels import check_pixels
from certjax.tracing import is_traced

_TINY = 1e-10  # Beside the length, not under the root: as in the published code.


def lpips(feature_fn, weights=None, root=True):
  r"""The distance of unit-normalised activations.

    d(x1, x2)^2 = sum_l 1 / (H_l W_l) sum_ij sum_c w_lc (g_l(x1)_ijc - g_l(x2)_ijc)^2

  with g_l the activations of layer l, divided at each position by their length over channels.
  Without weights the root of it is PAT's distance; with learned weights and without the root it is
  LPIPS as published.

  Args:
    feature_fn: a `FeatureFn` of images in [0, 1]; scaling them is its own affair (the published
      LPIPS takes [-1, 1] and scales to the same numbers).
    weights: one float[C_l] a layer, at least 0; None for 1.
    root: d, else d^2.

  Returns:
    A `Distance`: `(x1[H, W, C], x2[H, W, C]) -> scalar`. Without weights d <= 2 sqrt(number of layers),
    with activations that are never negative d <= sqrt(2 (number of layers)). Its gradient is finite
    everywhere; for equal images it is 0.

  Raises:
    ValueError: for negative weights; when called, for weights that do not fit the activations, and, outside
      of jit, for images outside [0, 1].

  Example:
    >>> feature_fn = lambda x: ((x,), x.sum((1, 2)))
    >>> x1, x2 = jnp.array([[[0.75, 1.0]]]), jnp.array([[[1.0, 0.0]]])
    >>> round(float(lpips(feature_fn)(x1, x2)) ** 2, 4)  # (0.6, 0.8) against (1, 0).
    0.8

  References:
    Zhang, Isola, Efros, Shechtman & Wang 2018 (arXiv:1801.03924), equation 1; Laidlaw, Singla & Feizi
    2021 (arXiv:2006.12655), equation 2.
  """
  embed = embedding(feature_fn, weights)

  def distance(x1, x2):
    check_pixels(x1=x1, x2=x2)
    phi = embed(jnp.stack([x1, x2]))
    difference = phi[1] - phi[0]
    return length(difference) if root else jnp.sum(difference**2)

  return distance


def embedding(feature_fn, weights=None):
  """phi, for which |phi(x1) - phi(x2)|_2 is the distance of `lpips`.

  Args:
    feature_fn: a `FeatureFn`.
    weights: as in `lpips`.

  Returns:
    `x[B, H, W, C] -> phi[B, D]`, with D the number of activations of all layers together.

  Raises:
    ValueError: as in `lpips`.

  Example:
    >>> phi = embedding(lambda x: ((x, x[:, :1]), x.sum((1, 2))))
    >>> phi(jnp.array([[[[3.0, 4.0]], [[0.0, 0.0]]]])).shape
    (1, 6)
  """
  check_weights(weights)
  return lambda x: unit_features(feature_fn(x)[0], weights)


def unit_features(activations, weights=None):
  """phi of a batch from its activations, in one vector an image.

    phi = concat_l flatten( sqrt(w_l / (H_l W_l)) g_l / (|g_l| + 1e-10) ),  |.| over channels

  Args:
    activations: a tuple of float[B, H_l, W_l, C_l].
    weights: as in `lpips`.

  Returns:
    float[B, D].

  Raises:
    ValueError: for weights that do not fit the activations.

  Example:
    >>> phi = unit_features((jnp.array([[[[3.0, 4.0]], [[0.0, 0.0]]]]),))
    >>> np.asarray(phi).round(4)
    array([[0.4243, 0.5657, 0.    , 0.    ]], dtype=float32)
  """
  units = [jax.vmap(_unit)(a) for a in activations]
  if weights is not None:
    wanted, found = [a.shape[-1:] for a in activations], [jnp.shape(w) for w in weights]
    if wanted != found:
      raise ValueError(
        f'`weights` must hold one array a layer, of shapes {wanted}, got {found}: those of another '
        f'network or other layers do not fit.'
      )
    # Over all positions, the scale of each channel, in the order of `ravel`.
    repeated = [
      jnp.tile(jnp.sqrt(w), a[0, ..., 0].size) for w, a in zip(weights, activations, strict=True)
    ]
    units = [unit * s.astype(unit.dtype)[None] for unit, s in zip(units, repeated, strict=True)]
  return jnp.concatenate(units, axis=1)


def _unit(activation):
  """One layer of one image, float[H, W, C] -> float[H W C]."""
  height, width, _ = activation.shape
  # A product, not a sum of squares: XLA on CPU sums over the last axis slowly. In full precision: a
  # product's default is bfloat16 on TPU.
  square = jnp.einsum('hwc,hwc->hw', activation, activation, precision='highest')
  seen = square != 0  # NaN stays NaN.
  # Not 0 / 1e-10, whose derivative is 1e10.
  scale = jnp.where(seen, 1 / (jnp.sqrt(jnp.where(seen, square, 1)) + _TINY), 0)
  return (activation * (scale / (height * width) ** 0.5)[..., None]).ravel()


def check_weights(weights):
  """Complains of negative weights, under which d^2 could be negative.

  Raises:
    ValueError: names the layer and the smallest weight.

  Example:
    >>> check_weights([np.array([0.5, 0.0])])
  """
  for layer, w in enumerate(() if weights is None else weights):
    if not is_traced(w) and not np.all(np.asarray(w) >= 0):
      raise ValueError(
        f'`weights` must be at least 0, got {np.min(w)} in layer {layer}: clip them, as training '
        f'does after every step.'
      )
