"""Threats beyond norms of pixels, as `certjax attack --norm` names them, and how their latents are searched.

Sizes without a word here are those of the papers at the paper's own budget; they grow and shrink with it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Perceptual(NamedTuple):
  """All images at most `eps` away in LPIPS; which network measures it, the run says.

  Attributes:
    norm: 'lpips'.
    eps: largest distance.
  """

  norm: str
  eps: float


class Latent(NamedTuple):
  """A threat that changes images through a latent.

  Attributes:
    unit: of its size, in words.
    build: `eps -> Functional`.
    optimizer: of `attacks.functional.latent_attack`.
    step: `(eps, num_steps) -> step_size`.
    penalty: `(eps) -> penalty_weight`.
  """

  unit: str
  build: Callable
  optimizer: str
  step: Callable
  penalty: Callable


def perceptual(eps) -> Perceptual:
  """The threat of norm 'lpips'.

  Raises:
    ValueError: unless `eps` is at least 0 and finite.

  Example:
    >>> perceptual(0.5).norm
    'lpips'
  """
  if not 0 <= eps < math.inf:
    raise ValueError(f'`eps` must be at least 0 and finite (0.5 on CIFAR-10), got eps={eps}.')
  return Perceptual('lpips', eps)


def latent_part(threat, num_classes, *, num_steps, **parameters) -> tuple[Any]:
  """One `attacks.Part` that returns latents; a parameter that is None is the threat's own.

  Args:
    threat: a `Functional`, `name` a key of `LATENTS`.
    num_classes: K, unused.
    num_steps: static.
    **parameters: the others of `attacks.functional.latent_attack`.

  Example:
    >>> threat = LATENTS['jpeg'].build(0.5)
    >>> latent_part(threat, 10, num_steps=4, step_size=None, optimizer=None)[0].settings
    {'num_steps': 4, 'step_size': 0.25, 'optimizer': 'sign', 'penalty_weight': 0.0}
  """
  from certjax import attacks
  from certjax.evaluate import latent_search

  del num_classes
  own, eps = LATENTS[threat.name], float(threat.eps)
  usual = {
    # At eps = 0 every step is the same, and none may have length 0.
    'step_size': own.step(eps, max(num_steps, 1)) or 1.0,
    'optimizer': own.optimizer, 'penalty_weight': own.penalty(eps) if eps else 0.0,
  }  # fmt: skip
  given = {name: value for name, value in parameters.items() if value is not None}
  settings = {'num_steps': num_steps, **usual, **given}
  return (attacks.Part('latent', latent_search(threat, **settings), settings),)


def _of(name):
  """Builds by a factory of `attacks.functional`."""

  def build(eps):
    from certjax.attacks import functional

    return getattr(functional, name)(eps)

  return build


def _composed(eps):
  """C + S + D, each of its published budgets times eps."""
  from certjax.attacks import functional

  parts = (
    functional.recolor_of_image(0.06 * eps), functional.stadv(0.05 * eps), functional.additive(8 / 255 * eps)
  )  # fmt: skip
  whole = functional.compose(*parts, weights=(1, 1, 0))
  return whole._replace(
    name='composed', eps=eps, distance=lambda latent: eps * whole.distance(latent)
  )


_RISE = lambda eps, num_steps: eps / math.sqrt(num_steps)
_SIGN = functools.partial(
  Latent, optimizer='sign', step=_RISE, penalty=lambda eps: 0.0
)  # As in UAR.
_ADAM = functools.partial(Latent, optimizer='adam')  # As in PAT's evaluation.

LATENTS = {
  'stadv': _ADAM(
    'normalised flow', _of('stadv'), step=lambda eps, n: eps / 5, penalty=lambda eps: 0.0025 / eps
  ),
  'recolor': _ADAM(
    'share of a channel', _of('recolor_of_image'), step=lambda eps, n: eps / 60, penalty=lambda eps: 0.0036 / eps
  ),
  'composed': _ADAM(
    'times recolor 0.06, stadv 0.05, linf 8 / 255', _composed, step=lambda eps, n: 0.001 * eps,
    penalty=lambda eps: 0.05,
  ),
  'jpeg': _SIGN('largest rounding errors', _of('jpeg')),
  'elastic': _SIGN('pixels of flow', _of('elastic')),
  'fog': _SIGN('wibbles', _of('fog')),
  'gabor': _SIGN('pixel value a wave', _of('gabor')),
  'snow': _SIGN('streaks', _of('snow')),
}  # fmt: skip
"""Name -> its `Latent`."""
UNITS = {'lpips': 'LPIPS distance', **{name: latent.unit for name, latent in LATENTS.items()}}
"""Name -> unit of eps and distances."""
