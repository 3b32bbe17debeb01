"""The nearest orthogonal matrix by Bjorck's iteration, scaled by a Gram bound of the norm.

  W <- W / ||W||,  then  W <- 3/2 W - 1/2 W W^* W

converges to the polar factor wherever the singular values lie in (0, sqrt 3). The scale is
one of Gram iteration's upper bounds: stateless and differentiable, and unlike power
iteration never too small. A finite number of steps leaves singular values below 1.
"""

import jax.numpy as jnp
from jax import lax

PRECISION = lax.Precision.HIGHEST
"""Orthogonality is lost to bfloat16 and TF32 products."""


def adjoint(w):
  """The conjugate transpose of the last two axes."""
  return jnp.conj(jnp.swapaxes(w, -1, -2))


def multiply(*factors):
  """The product of matrices, in full precision.

  Example:
    >>> multiply(jnp.eye(2), jnp.ones((2, 1)), jnp.ones((1, 2))).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
  """
  product = factors[0]
  for factor in factors[1:]:
    product = jnp.matmul(product, factor, precision=PRECISION)
  return product


def gram_scale(w, *, num_steps):
  r"""Gram iteration's upper bound of the spectral norm.

  With G_0 = W and G_{t+1} = G_t^* G_t,

    ||W||_2 <= ||G_t||_F^{1 / 2^t} <= rank(W)^{1 / 2^{t+1}} ||W||_2.

  Args:
    w: float or complex[..., m, n].
    num_steps: t; 0 is the Frobenius norm.

  Returns:
    float[...], 0 for zero matrices. An upper bound in exact arithmetic.

  Example:
    >>> [round(float(gram_scale(jnp.diag(jnp.array([2.0, 1.0])), num_steps=t)), 3) for t in (0, 1, 3)]
    [2.236, 2.031, 2.0]

  References:
    Delattre et al. 2023 (arXiv:2305.16173).
  """
  # Each step rescales by the Frobenius norm: no power leaves the range of float32.
  root, scale = 1.0, 1.0
  for step in range(num_steps + 1):
    if step:
      w = multiply(adjoint(w), w)
      root = root / 2
    square = jnp.sum(jnp.real(w * jnp.conj(w)), (-2, -1))
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    w = w / norm[..., None, None].astype(w.dtype)
    scale = scale * norm**root
  return jnp.where(square > 0, scale, 0)


def bjorck(w, *, num_steps=20, gram_steps=3):
  """The nearest matrix with orthonormal rows or columns, approached from below.

  Args:
    w: float or complex[..., m, n].
    num_steps: iterations of order 1 with beta = 1/2.
    gram_steps: Gram steps of the scale.

  Returns:
    [..., m, n], the polar factor of `w` up to what the iterations leave: singular values
    start at sigma / scale and grow by at most 3/2 a step, so those of a badly conditioned
    matrix stay below 1. Zero singular values stay zero.

  Example:
    >>> q = bjorck(jnp.array([[2.0, 1.0], [0.0, 1.0]]))
    >>> bool(jnp.allclose(q.T @ q, jnp.eye(2), atol=1e-6))
    True

  References:
    Bjorck & Bowie 1971; Anil et al. 2019 (arXiv:1811.05381); Newton's iteration of LOT
    (arXiv:2210.11620) for (V V^*)^{-1/2} V is the same iteration.
  """
  scale = gram_scale(w, num_steps=gram_steps)
  w = w / jnp.where(scale > 0, scale, 1)[..., None, None].astype(w.dtype)
  tall = w.shape[-2] >= w.shape[-1]  # the smaller Gram matrix

  def step(w, _):
    product = multiply(w, multiply(adjoint(w), w)) if tall else multiply(w, adjoint(w), w)
    return 1.5 * w - 0.5 * product, None

  return lax.scan(step, w, None, length=num_steps)[0]


def one_by_one(fn, *matrices):
  """`fn` of every matrix of a batch; on CPU in a loop.

  Several batched LAPACK calls in one program can wait for each other for ever there (jax 0.10.2 on
  two cores: a network of Cayley layers on 28 x 28 images); calls on single matrices do not.

  Args:
    fn: `float or complex[..., m, n], ... -> [..., p, q]`, for any leading axes.
    *matrices: of common leading axes.

  Returns:
    [..., p, q].

  Example:
    >>> one_by_one(jnp.linalg.inv, 2 * jnp.eye(2)[None]).tolist()
    [[[0.5, 0.0], [0.0, 0.5]]]
  """
  leading = matrices[0].shape[:-2]
  if not leading:
    return fn(*matrices)

  def loop(*matrices):
    flat = [matrix.reshape(-1, *matrix.shape[-2:]) for matrix in matrices]
    made = lax.map(lambda each: fn(*each), tuple(flat))
    return made.reshape(*leading, *made.shape[-2:])

  return lax.platform_dependent(*matrices, cpu=loop, default=fn)
