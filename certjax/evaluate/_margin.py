r"""Certificates of Lipschitz networks: the logits of one clean image, no noise, no samples.

The classifier that is certified is the network of the stored weights **in exact arithmetic**, each
normalised filter (or matrix) being the float64 array that float64 arithmetic made of the weights.
Two errors separate it from what is computed here, and both are paid for:

  the constant   is that of the float64 arrays: `layers.lipschitz_upper` measures them, and it is
                 raised by 1e-10 of itself, in case the program of the logits rounds them otherwise,
                 and by what SOC's matrices are off;
  the logits     are float64, and each counts as off by `rounding_bounds`, which is a priori.

So the label holds for every x' in the ball, real numbers included, under a forward pass without
rounding. A float32 deployment is another program: `slack` covers all that stay close.

Images are evaluated one at a time, so that no record depends on a batch, a chunk or a shard.

Of a network that ends in a `layers.CurvatureHead` (CRC-Lip) the features below the head are computed in
float64, and count as off by `rounding`: a ball of radius r around the computed z lies r - rounding
around the exact one, and (r - rounding) / L around the image. In it f_y - f_j falls no faster than the
head's slope at z and its curvature say, nor than its Lipschitz constant: the larger radius counts,
each of them over all rivals.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from certjax import bounds, certify, layers, models, parallel
from certjax.evaluate._curvature import in_24_bits
from certjax.evaluate._one_by_one import records_of
from certjax.evaluate._rounding import is_sequential, rounding_bounds

_RELATIVE = 1e-10
_DISTINCT = 3e-7  # Added to rows of norm 1, its square pays for 4e-14 of their distance at least.


class SmoothHead(NamedTuple):
  """A curvature head, in float64.

  Attributes:
    matrices: W_1, b_1, W_2, b_2, as arguments of `bounds.expansion`.
    beta: sharpness of its softplus.
    curvature: float64[K, K], of `bounds.curvature`.
    steepest: float64[K, K], upper bounds of the Lipschitz constants of all f_y - f_j.
  """

  matrices: dict
  beta: float
  curvature: np.ndarray
  steepest: np.ndarray


class ExactNetwork(NamedTuple):
  """A Lipschitz network, ready to be certified; made by `exact_network`.

  Attributes:
    operator: `float64[1, H, W, C] -> float64[1, K]`, a `jax.tree_util.Partial`, to be called
      where float64 is enabled; with a `head` to its features float64[1, D].
    lipschitz: L of the logits, or of the features below `last_layer` or `head`; from L2 in pixel
      values.
    last_layer: float64[K, D], or None.
    rounding: bound of the error of each computed logit; of the features, of its length.
    shape: (H, W, C).
    head: a `SmoothHead`, or None.
  """

  operator: Any
  lipschitz: float
  last_layer: np.ndarray | None
  rounding: float
  shape: tuple
  head: SmoothHead | None = None

  @property
  def constants(self) -> dict:
    """What the proof took from the weights."""
    bend = {'curvature': float(np.max(self.head.curvature))} if self.head else {}
    return {'lipschitz': self.lipschitz, 'rounding': self.rounding, **bend}

  @property
  def num_classes(self) -> int:
    """K."""
    if self.head:
      return len(self.head.curvature)
    with parallel.x64():
      x = jax.ShapeDtypeStruct((1, *self.shape), np.float64)
      return jax.eval_shape(self.operator, x).shape[-1]


def exact_network(model_fn, *, shape) -> ExactNetwork:
  """A network in float64, with its constant and the bound of its rounding.

  Args:
    model_fn: a module and its variables, as `models.bind` or `models.as_model_fn` make them; the
      module states its constant by `lipschitz(variables)`.
    shape: (H, W, C) of the images.

  Returns:
    An `ExactNetwork`.

  Raises:
    ValueError: for another function, a module that states no constant or an infinite one, and
      weights that are not finite.

  Example:
    >>> module = models.LipConvNet(10, width=2)
    >>> variables = module.init(jax.random.key(0), np.zeros((1, 2, 2, 1), np.float32))
    >>> network = exact_network(models.bind(module, variables), shape=(2, 2, 1))
    >>> 1 < network.lipschitz < 1 + 1e-9, 0 < network.rounding < 1e-8
    (True, True)
  """
  module, variables = _stated(model_fn)
  with parallel.x64(), jax.default_device(_device()):
    variables = jax.tree.map(_widened, variables)
    smooth = module.smooth_head(variables) if hasattr(module, 'smooth_head') else None
    head = _smooth_head(*smooth) if smooth else None
    module = module.clone(last=None) if smooth else module
    constant = layers.lipschitz_upper(module, variables)
    if not constant < np.inf:
      raise ValueError(
        f'{_name(module)} has no finite Lipschitz constant with these weights: restore an earlier '
        f'checkpoint, or certify it under noise, `--method gaussian --sigma 0.25`.'
      )
    operator = _operator(module, variables)
    _check_shape(operator, shape)
    rounding = rounding_bounds(module, variables, operator, shape, constant)
    rows = module.last_layer(variables) if hasattr(module, 'last_layer') else None
  if rows is not None:  # They hold the constant of what is below.
    constant, rows = 1.0, _apart(np.asarray(rows, np.float64))
  constant *= 1 + _RELATIVE + rounding.constant
  return ExactNetwork(operator, constant, rows, rounding.logits, tuple(shape), head)


def margin_certificate(network: ExactNetwork, x, *, slack=None):
  """Certifies images by the margin of their logits.

  Args:
    network: from `exact_network`.
    x: float32[B, H, W, C] in [0, 1].
    slack: None certifies the network itself. Otherwise the label holds for every program whose
      logits are less than slack / 2 from those computed here, for all images in [0, 1] of the ball;
      with a curvature head, from those of exact arithmetic.

  Returns:
    A `certify.Certificate`, L2, in pixel values; it abstains where a logit is not finite.

  Raises:
    ValueError: for a negative slack.

  Example:
    >>> module = models.LipConvNet(10, width=2)
    >>> x = np.ones((1, 2, 2, 1), np.float32)
    >>> variables = module.init(jax.random.key(0), x)
    >>> network = exact_network(models.bind(module, variables), shape=(2, 2, 1))
    >>> bool(margin_certificate(network, x).radius[0] > 0)
    True

  References:
    Tsuzuku, Sato & Sugiyama 2018 (arXiv:1802.04034).
  """
  logits = np.stack([_logits(network, image) for image in x])
  return _certified(network, logits, slack)


def margin_records(network: ExactNetwork, images, *, slack=None, stop=lambda: False):
  """Certifies images and yields their records in order.

  Args:
    network: from `exact_network`.
    images: `data.Images` or `data.Stream`.
    slack: as in `margin_certificate`; None records the network's own certificate only.
    stop: asked before every image; once it says True, the rest is left.

  Yields:
    (record, seconds): index, label, predict and radius (float64, rounded down); with `slack` also
    slack_predict and slack_radius, the certificate that holds for other programs too.

  Example:
    >>> from certjax import data
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> identity = jax.tree_util.Partial(lambda x: x.reshape(len(x), -1))
    >>> network = ExactNetwork(identity, 1.0, None, 0.0, (1, 2, 1))
    >>> ((record, seconds),) = margin_records(network, images)
    >>> record['predict'], round(record['radius'], 4)  # 0.6 / sqrt(2).
    (1, 0.4243)
  """
  prove = lambda image: functools.partial(_certified, network, _logits(network, image))
  return records_of(prove, images, slack=slack, stop=stop)


def _certified(network, logits, slack):
  if slack is not None and not 0 <= slack < np.inf:
    raise ValueError(f'`slack` must be a difference of logits, 0 or more, got {slack}.')
  if network.head:
    return _by_curvature(network, logits, slack or 0.0)
  # The exact logits are `rounding` away from those computed here: at x, and once more at x', where
  # another program is slack / 2 away from what would be computed here.
  apart = network.rounding if slack is None else 2 * network.rounding + slack / 2
  return certify.margin(
    logits, lipschitz=network.lipschitz, last_layer=network.last_layer, slack=apart
  )


def _by_curvature(network, features, slack):
  """The larger of both radii around computed features float64[..., D]."""
  head = network.head
  finite = np.isfinite(features).all(axis=-1)
  around = bounds.expansion(
    np.where(finite[..., None], features, 0.0), **head.matrices, curvature=head.curvature,
    beta=head.beta,
  )  # fmt: skip
  gap = np.nextafter(around.gap - slack, -np.inf)
  options = {'lipschitz': network.lipschitz, 'slack': network.rounding}
  curved = certify.curvature_margin(around.label, gap, around.slope, around.curvature, **options)
  steepest = head.steepest[around.label]
  straight = certify.curvature_margin(around.label, gap, steepest, 0 * steepest, **options)
  label, radius = certify.best_of(curved, straight)
  return certify.certificate(label, np.where(finite, radius, np.nan))


def _smooth_head(head, variables):
  matrices = head.matrices(variables)
  first, last = matrices['first'], matrices['last']
  apart = np.array([np.linalg.norm(last - row, axis=1) for row in last])
  return SmoothHead(
    matrices, head.beta, in_24_bits(bounds.curvature(first, last, beta=head.beta)),
    apart * head.hidden_lipschitz(variables) * (1 + _RELATIVE),
  )  # fmt: skip


def _logits(network, image):
  """float64[K] of one image, or its features below a curvature head."""
  with parallel.x64(), jax.default_device(_device()):
    return np.asarray(_evaluate(network.operator, np.asarray(image, np.float64)[None]))[0]


@jax.jit
def _evaluate(operator, x):
  return operator(x).astype(np.float64)


def _device():
  """Where float64 is IEEE's: a TPU has none, there the host evaluates."""
  first = jax.local_devices()[0]
  return jax.local_devices(backend='cpu')[0] if first.platform == 'tpu' else first


def _stated(model_fn) -> tuple[Any, Any]:
  """(module, variables) of a bound module that states its constant."""
  module = models.module_of(model_fn)
  if not callable(getattr(module, 'lipschitz', None)) and not is_sequential(module):
    what = 'this function does' if module is None else f'{_name(module)} does'
    raise ValueError(
      f"`method`='lipschitz' needs a network that states its constant, `lipschitz(variables)`, as "
      f'models.LipConvNet does, bound to its weights (`models.bind`); {what} not: certify it under '
      f'noise, `--method gaussian --sigma 0.25`.'
    )
  return module, model_fn.args[0]


def _operator(module, variables):
  """Evaluation in float64 with all filters made once, where the module can."""
  if callable(getattr(module, 'materialize', None)) or is_sequential(module):
    return jax.tree.map(_widened, layers.materialize(module, variables))
  return jax.tree_util.Partial(models.bind(module, None).func, variables)


def _widened(leaf):
  leaf = np.asarray(leaf)
  if np.issubdtype(leaf.dtype, np.complexfloating):
    return leaf.astype(np.complex128)
  return leaf.astype(np.float64) if jax.numpy.issubdtype(leaf.dtype, np.floating) else leaf


def _apart(rows):
  """Rows whose distances are no smaller than the exact ones, nearly equal rows included.

  A column of its own for each raises d to sqrt(d^2 + 2 t^2) >= d + 4e-14 norms, for d up to 2 norms:
  more than the rounding of a row.
  """
  norm = np.max(np.linalg.norm(rows, axis=1), initial=0.0)
  return np.concatenate([rows, _DISTINCT * norm * np.eye(len(rows))], axis=1)


def _check_shape(operator, shape):
  x = jax.ShapeDtypeStruct((1, *shape), np.float64)
  try:
    found = jax.eval_shape(operator, x).shape
  except Exception as error:  # Whatever the user's model raises: its cause stays visible.
    raise ValueError(
      f'`model_fn` does not take float64 images of shape {tuple(shape)}: {error}'
    ) from error
  if len(found) != 2 or found[0] != 1:
    raise ValueError(f'`model_fn` must return logits [B, K], got shape {found} for one image.')


def _name(module):
  return type(module).__name__
