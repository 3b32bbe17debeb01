"""The MNIST network of Lee, Yuan, Chang & Jaakkola 2019, for their discrete noise."""

from flax import linen as nn

from certjax.layers import conv_general_dilated
from certjax.models._normalize import Normalize


class LeeCNN(nn.Module):
  """[conv 5x5 - max pooling 2x2] x 2 (20, then 50) - dense 500 - dense K, ReLU between, no padding.

  Attributes:
    num_classes: K.
    mean, std: normalisation of each channel.

  References:
    Lee, Yuan, Chang & Jaakkola 2019 (arXiv:1906.04948).
  """

  # Deviation: no dropout of channels before the second pooling.
  num_classes: int
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, K]."""
    del train
    x = Normalize(self.mean, self.std)(x)
    for features in (20, 50):
      conv = nn.Conv(features, (5, 5), padding='VALID', conv_general_dilated=conv_general_dilated)
      x = nn.max_pool(nn.relu(conv(x)), (2, 2), strides=(2, 2))
    x = nn.relu(nn.Dense(500)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(x)
