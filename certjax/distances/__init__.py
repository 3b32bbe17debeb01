"""How far two images are apart: norms of pixels, structural similarity, features of a network.

Each factory returns a `Distance`, `(x1[H, W, C], x2[H, W, C]) -> scalar`, of images in [0, 1].
"""

from certjax.distances._between import between
from certjax.distances._lp import lp
from certjax.distances._lpips import embedding, lpips, unit_features
from certjax.distances._pixels import check_pixels
from certjax.distances._ssim import ssim

__all__ = [
  'between',
  'check_pixels',
  'embedding',
  'lp',
  'lpips',
  'ssim',
  'unit_features',
]
