"""`certjax doctor`: is this machine fit to prove something, and how fast?"""

import math
import time

from certjax import configs
from certjax.cli import _parse, _versions

_SIGMA, _DISTANCE, _AT_LEAST = 0.25, 0.3, 0.25  # The self-test: 10,000 samples lose under 0.05.


def doctor(arguments):
  """`certjax doctor [options]`."""
  config = _parse.parse(configs.Doctor, 'doctor', arguments)
  print(_versions.lines(_versions.versions()))
  radius = _self_test(config.chunk)
  print(
    f'self-test         linear classifier at distance {_DISTANCE}: certified {math.floor(radius * 1e4) / 1e4:.4f}'
  )
  rate = _speed(config.chunk)
  print(f'speed             {rate:,.0f} noisy 8x8 images a second through the digits CNN')


def _self_test(chunk):
  """The certified radius of an image whose distance to the boundary is known."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from certjax import certify, smoothing

  w = np.arange(1.0, 65.0, dtype=np.float32)
  w = w / np.linalg.norm(w)
  proof = certify.sampled(
    jax.random.key(0),
    lambda x: jnp.stack([x @ w, jnp.zeros(len(x))], axis=1),
    smoothing.gaussian(sigma=_SIGMA),
    np.float32(_DISTANCE) * w[None],
    num_samples=10_000,
    chunk=chunk,
  )
  radius = float(proof.radius[0])
  if not _AT_LEAST < radius <= _DISTANCE:
    raise ValueError(
      f'the self-test certificate must lie in ({_AT_LEAST}, {_DISTANCE}], got {radius}: do not '
      f'trust certificates of this machine; compare the versions above with those in BUILD.md.'
    )
  return radius


def _speed(chunk):
  """Noisy images a second, without compilation."""
  import jax
  import numpy as np

  from certjax import certify, models, smoothing

  module = models.build('digits-cnn', num_classes=10)
  x = np.zeros((1, 8, 8, 1), np.float32)
  model_fn = models.bind(module, module.init(jax.random.key(0), x))
  draw = lambda number: certify.votes(
    jax.random.key(0), model_fn, smoothing.gaussian(sigma=_SIGMA), x, num_samples=number,
    chunk=chunk,
  )  # fmt: skip
  draw(chunk)
  begun = time.perf_counter()
  draw(100 * chunk)
  return 100 * chunk / (time.perf_counter() - begun)
