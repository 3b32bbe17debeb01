"""StAdv (Xiao et al. 2018): a flow moves each pixel on its own, and neighbours are asked to move alike."""

import jax.numpy as jnp

from certjax.attacks.functional._field import check_choice, variation, warp
from certjax.attacks.functional._functional import Functional, check_eps, in_box

_UNITS = {'normalised': lambda size: size / 2, 'px': lambda size: 1}
"""Name -> (height or width -> pixels in a unit)."""


def stadv(eps=0.05, *, units='normalised', padding='zeros', neighbours='axis') -> Functional:
  """x_adv[i, j] is x at (i, j) + flow[i, j], bilinearly; the penalty is the flow's variation.

  Args:
    eps: largest |flow|, down and to the right each; may be traced.
    units: 'normalised', of images that reach from -1 to 1: .05 is .8 pixels of 32 and 5.6 of 224; or
      'px'.
    padding: what lies outside: 'zeros', black, as in ReColorAdv and PAT; or 'edge', the nearest pixel,
      as in stAdv.
    neighbours: of the penalty: 'axis', as in ReColorAdv and PAT; or 'diagonal', as in stAdv.

  Returns:
    A `Functional` with latents float[H, W, 2] (down, right). All values of x_adv lie between those
    of pixels of x (and black) at most `eps` away, rounded up.

  Raises:
    ValueError: if `eps` is negative, or above 2 in normalised units; or a choice is unknown.

  Example:
    >>> x, right = jnp.array([[[0.0], [1.0], [0.5]]]), jnp.full((1, 3, 2), 0.5)
    >>> stadv(0.5, units='px', padding='edge').decode(x, right).ravel().tolist()
    [0.5, 0.75, 0.5]

  References:
    Xiao et al. 2018 (arXiv:1801.02612). Bound and black border: Laidlaw & Feizi 2019 (arXiv:1906.00001).
  """
  # Deviation: as in PAT the flow is bounded; in Xiao et al. the penalty alone keeps it small.
  check_choice('units', units, _UNITS)
  check_choice('padding', padding, ('zeros', 'edge'))
  check_choice('neighbours', neighbours, ('axis', 'diagonal'))
  if units == 'normalised':
    check_eps(eps, largest=2, remedy=f"an image is 2 wide; for pixels write units='px', eps={eps}")

  def decode(x, latent):
    pixels = [latent[..., d] * _UNITS[units](x.shape[d]) for d in (0, 1)]
    return jnp.clip(warp(x, jnp.stack(pixels, axis=-1), padding=padding), 0, 1)

  penalty = lambda latent: variation(latent, neighbours=neighbours)
  return in_box('stadv', eps, units, lambda shape: (*shape[:2], 2), decode, penalty=penalty)
