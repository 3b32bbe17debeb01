"""Functional and spatial threats: recolourings, flows, JPEG, weather; one search for all of them."""

from certjax.attacks.functional._colour import luv_to_rgb, rgb_to_luv
from certjax.attacks.functional._elastic import elastic
from certjax.attacks.functional._field import interpolate, variation, warp
from certjax.attacks.functional._fog import diamond_square, fog
from certjax.attacks.functional._functional import Functional, additive, compose
from certjax.attacks.functional._jpeg import (
  CHROMA,
  COSINES,
  LUMA,
  TO_YCBCR,
  decode_jpeg,
  encode_jpeg,
  jpeg,
  rgb_to_ycbcr,
  ycbcr_to_rgb,
)
from certjax.attacks.functional._latent import latent_attack
from certjax.attacks.functional._recolor import recolor, recolor_of_image
from certjax.attacks.functional._spatial import stadv
from certjax.attacks.functional._strokes import Strokes, gabor, snow

__all__ = [
  'CHROMA',
  'COSINES',
  'LUMA',
  'TO_YCBCR',
  'Functional',
  'Strokes',
  'additive',
  'compose',
  'decode_jpeg',
  'diamond_square',
  'elastic',
  'encode_jpeg',
  'fog',
  'gabor',
  'interpolate',
  'jpeg',
  'latent_attack',
  'luv_to_rgb',
  'recolor',
  'recolor_of_image',
  'rgb_to_luv',
  'rgb_to_ycbcr',
  'snow',
  'stadv',
  'variation',
  'warp',
  'ycbcr_to_rgb',
]
