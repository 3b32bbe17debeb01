"""Images that a distance or an attack is handed, checked where they are numbers already."""

from certjax import data
from certjax.tracing import is_traced


def check_pixels(**images):
  """Refuses values outside [0, 1]: images in [-1, 1], the usual mistake with LPIPS, give a wrong number
  without any error.

  Inside `jax.jit`, `jax.grad` and `jax.vmap` arrays are tracers, which hold no numbers: these pass.

  Args:
    **images: name -> array.

  Raises:
    ValueError: as `data.check_pixels`, which says how to mend it.

  Example:
    >>> import jax.numpy as jnp
    >>> check_pixels(x1=jnp.zeros((2, 2, 1)), x2=jnp.ones((2, 2, 1)))
  """
  for name, x in images.items():
    if not is_traced(x):
      data.check_pixels(x, name=name)
