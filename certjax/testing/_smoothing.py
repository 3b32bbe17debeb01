"""Properties of a `Smoothing`: its sampler is a pure function of the key, its radius a proof."""

import inspect

import jax
import numpy as np

from certjax.smoothing import COUNTED


def check_smoothing(smoothing, x):
  """Checks sampler and radius of a `Smoothing` on one image.

  Args:
    smoothing: a `Smoothing`.
    x: float[...], ONE image.

  Raises:
    AssertionError: if argument names differ from the protocol; one key gives two samples, or two keys
      the same; `vmap` or `jit` changes a sample by more than float rounding; the shape differs
      from `jax.eval_shape`; a sample is not finite; or `check_radius` fails.

  Example:
    >>> import jax.numpy as jnp
    >>> from certjax import smoothing
    >>> check_smoothing(smoothing.gaussian(sigma=0.25), jnp.zeros((4, 4, 1)))
  """
  names = list(inspect.signature(smoothing.radius).parameters)
  assert names == ['p_a', 'p_b', 'x'], f'radius must take (p_a, p_b=None, *, x=None), not {names}'
  assert smoothing.shape is None or tuple(smoothing.shape) == x.shape
  keys = jax.random.split(jax.random.key(0), 3)
  first, again, other = (
    np.asarray(smoothing.sample(key, x)) for key in (keys[0], keys[0], keys[1])
  )
  assert np.isfinite(first).all(), 'a sample is not finite'
  assert np.array_equal(first, again), 'one key must give one sample'
  assert not np.array_equal(first, other), 'two keys gave the same sample'
  expected = jax.eval_shape(smoothing.sample, keys[0], x)
  assert first.shape == expected.shape and first.dtype == expected.dtype
  batched = np.asarray(jax.jit(jax.vmap(smoothing.sample, (0, None)))(keys, x))
  np.testing.assert_allclose(batched[0], first, rtol=1e-5, atol=1e-6)
  # A whole number of pixels takes more than a majority.
  check_radius(smoothing.radius, enough=0.99 if smoothing.unit in COUNTED else 0.51)


def check_radius(radius, *, num_points=201, enough=0.51):
  """Checks that a radius function behaves like a proof.

  Args:
    radius: `(p_a, p_b=None, *, x=None) -> float64[...]`.
    num_points: of the grid of probabilities.
    enough: a p_a above it must prove a radius.

  Raises:
    AssertionError: unless the radius is float64, at least 0, 0 at p_a = 1/2 and below, 0 where
      p_a <= p_b or a NaN enters, growing with p_a, falling with p_b, the same one by one
      as vectorised, and p_b = 1 - p_a gives no more than p_b = None.

  Example:
    >>> from certjax import smoothing
    >>> check_radius(smoothing.gaussian(sigma=1.0).radius)
  """
  p = np.linspace(0, 1, num_points)[:-1]
  r = np.asarray(radius(p))
  assert r.dtype == np.float64 and r.shape == p.shape
  assert (r >= 0).all(), f'negative radius {r.min()}'
  assert (r[p <= 0.5] == 0).all(), 'p_a <= 1/2 proves nothing'
  assert (np.diff(r) >= 0).all(), 'the radius must grow with p_a'
  assert (r[p > enough] > 0).all(), f'p_a > {enough} must prove something'
  assert float(radius(np.nan)) == 0, 'NaN must prove nothing'
  assert float(radius(0.9, np.nan)) == 0, 'NaN must prove nothing'
  assert float(radius(0.3, 0.3)) == 0 and float(radius(0.2, 0.3)) == 0
  np.testing.assert_array_equal(r, [float(radius(value)) for value in p])
  rivals = np.asarray(radius(0.9, np.linspace(0.001, 0.9, 50)))
  assert (np.diff(rivals) <= 0).all(), 'the radius must fall with p_b'
  binary = np.asarray(radius(p[1:], np.nextafter(1 - p[1:], 2)))
  assert (binary <= r[1:] * (1 + 1e-9) + 1e-12).all(), 'p_b >= 1 - p_a must not give more'
