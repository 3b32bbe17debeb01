"""Certificates of smooth fully connected networks by their curvature: one clean image, no noise.

The classifier is the network of the float64 matrices that `models.MLP.matrices` makes of the stored
weights, in exact arithmetic; all rounding is paid for (`bounds.crc`). Its radii are about every x'
of the ball, inside [0, 1] or not.

What does not depend on the image, the curvature of every pair of classes and the Lipschitz constant,
is bounded once, and kept to 24 bits, rounded up: the last bits of an eigenvalue depend on the number
of threads, and no record should. Images are evaluated one at a time, so that no record depends on a
batch or a shard.
"""

import functools
from typing import NamedTuple

import numpy as np

from certjax import bounds, certify, models
from certjax.evaluate._one_by_one import records_of


class CurvedNetwork(NamedTuple):
  """A smooth network, ready to be certified; made by `curved_network`.

  Attributes:
    smooth: a `bounds.SmoothNetwork`.
    method: a `certify.Curved`.
    num_classes: K.
  """

  smooth: bounds.SmoothNetwork
  method: certify.Curved
  num_classes: int

  @property
  def constants(self) -> dict:
    """What the proof took from the weights: the largest curvature, and L of the last hidden layer."""
    return {
      'curvature': float(np.max(self.smooth.curvature)),
      'lipschitz': self.smooth.lipschitz,
    }


def curved_network(model_fn, method, *, shape) -> CurvedNetwork:
  """A network with its curvature, of every pair of classes.

  Args:
    model_fn: a `models.MLP` and its variables, as `models.bind` or `models.as_model_fn` make them.
    method: a `certify.Curved`.
    shape: (H, W, C) of the images.

  Returns:
    A `CurvedNetwork`.

  Raises:
    ValueError: for another model, weights that are not finite, or a model of other images.

  Example:
    >>> import jax
    >>> module = models.MLP(3, hidden=(8,))
    >>> variables = module.init(jax.random.key(0), np.zeros((1, 2, 2, 1), np.float32))
    >>> network = curved_network(models.bind(module, variables), certify.crc(), shape=(2, 2, 1))
    >>> network.num_classes, bool(network.constants['curvature'] > 0)
    (3, True)
  """
  module = models.module_of(model_fn)
  if not isinstance(module, models.MLP):
    what = 'this function' if module is None else type(module).__name__
    raise ValueError(
      f"`method`='crc' needs a fully connected network with smooth activations, models.MLP (mlp2-sigmoid "
      f'and the like), bound to its weights; {what} is none: certify it under noise, `--method gaussian '
      f'--sigma 0.25`.'
    )
  parameters = model_fn.args[0]['params']
  pixels = np.shape(parameters['dense0']['kernel'])[0]
  if pixels != np.prod(shape):
    raise ValueError(
      f'`model_fn` does not take images of shape {tuple(shape)}: it was made for {pixels} pixel values.'
    )
  weights, biases = module.matrices(model_fn.args[0], shape)
  smooth = bounds.smooth_network(weights, biases, activation=module.activation)
  smooth = smooth._replace(
    curvature=in_24_bits(smooth.curvature), lipschitz=float(in_24_bits(smooth.lipschitz))
  )
  return CurvedNetwork(smooth, method, len(smooth.last))


def curved_certificate(network: CurvedNetwork, x, *, slack=None) -> certify.Certificate:
  """Certifies images by curvature.

  Args:
    network: from `curved_network`.
    x: float[B, H, W, C] in [0, 1].
    slack: None certifies the network itself. Otherwise the label holds for every program whose logits
      are less than slack / 2 from those of exact arithmetic, for all images of the ball.

  Returns:
    A `certify.Certificate`, L2, in pixel values; it abstains where a pixel is not finite.

  Example:
    >>> from certjax import bounds
    >>> smooth = bounds.smooth_network([np.eye(2), np.eye(2)], [np.zeros(2)] * 2, activation='tanh')
    >>> x = np.array([0.2, 0.8]).reshape(1, 1, 2, 1)
    >>> proof = curved_certificate(CurvedNetwork(smooth, certify.crc(), 2), x)
    >>> proof.label, proof.radius.round(3)
    (array([1]), array([0.424]))

  References:
    Singla & Feizi 2020 (arXiv:2006.00731).
  """
  proofs = [_certified(network, image, slack) for image in x]
  return certify.certificate(*map(np.stack, zip(*proofs, strict=True)))


def curved_records(network: CurvedNetwork, images, *, slack=None, stop=lambda: False):
  """Certifies images and yields their records in order.

  Args:
    network: from `curved_network`.
    images: `data.Images` or `data.Stream`.
    slack: as in `curved_certificate`; None records the network's own certificate only.
    stop: asked before every image; once it says True, the rest is left.

  Yields:
    (record, seconds): index, label, predict and radius (float64, rounded down); with `slack` also
    slack_predict and slack_radius, the certificate that holds for other programs too.

  Example:
    >>> from certjax import bounds, data
    >>> images = data.Images(np.array([51, 204], np.uint8).reshape(1, 1, 2, 1), np.array([1]), np.array([20]))
    >>> smooth = bounds.smooth_network([np.eye(2), np.eye(2)], [np.zeros(2)] * 2, activation='tanh')
    >>> ((record, seconds),) = curved_records(CurvedNetwork(smooth, certify.crc(), 2), images)
    >>> record['predict'], round(record['radius'], 3)
    (1, 0.424)
  """
  prove = lambda image: functools.partial(_certified, network, image)
  return records_of(prove, images, slack=slack, stop=stop)


def _certified(network, image, slack):
  """The certificate of one image."""
  options = {'slack': slack or 0.0, 'num_steps': network.method.num_steps}
  proof = bounds.crc_of(network.smooth, np.asarray(image)[None], **options)
  return certify.Certificate(proof.label[0], proof.radius[0])


def in_24_bits(values):
  """The next larger float32, as float64; 0 stays.

  Example:
    >>> in_24_bits([0.0, 1.0]).tolist()
    [0.0, 1.0000001192092896]
  """
  up = np.nextafter(np.float32(values), np.float32(np.inf)).astype(np.float64)
  return np.where(np.asarray(values) > 0, up, 0.0)
