"""The small network that IBM's Adversarial Robustness Toolbox (ART) publishes for derandomized smoothing."""

from flax import linen as nn

from certjax.layers import conv_general_dilated
from certjax.models._normalize import Normalize


class DerandomizedCNN(nn.Module):
  """conv 4x4 stride 2 (32) - max pooling 2x2 - dense 100 - dense K, ReLU between, no padding.

  Pixels are flattened channels first, so that ART's weights load as they are
  (`models.load_weights`): trained on bands of MNIST, which show the channels (x, 1 - x).

  Attributes:
    num_classes: K.
    mean, std: normalisation of each channel.
  """

  num_classes: int
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)

  @nn.compact
  def __call__(self, x, train=False):
    """float[B, H, W, C] -> float[B, K]."""
    del train
    x = Normalize(self.mean, self.std)(x)
    conv = nn.Conv(
      32,
      (4, 4),
      strides=2,
      padding='VALID',
      conv_general_dilated=conv_general_dilated,
      name='conv1',
    )
    x = nn.max_pool(nn.relu(conv(x)), (2, 2), strides=(2, 2))
    x = nn.relu(nn.Dense(100, name='fc1')(x.transpose(0, 3, 1, 2).reshape(len(x), -1)))
    return nn.Dense(self.num_classes, name='fc')(x)
