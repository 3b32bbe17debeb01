"""The header of a record: all that the votes depend on, so that a resume under anything else
refuses."""

import os
import platform

import jax
import jaxlib
import numpy as np
import scipy

import certjax
from certjax import data, records


def header(kind, config, smoothing, quantifier, variables, images, constants=None) -> dict:
  """The header of a run's records.

  Device and host counts are left out on purpose: the votes do not depend on them.

  Args:
    kind: 'certify' or 'predict'.
    config: dict, every setting that the records depend on; `chunk` among them where the model runs
      in batches, and `alpha` unless the method is exact.
    smoothing: the `Smoothing`, `Views`, `certify.Margin` or `certify.Bounded`, for norm and unit.
    quantifier: 'exact', or with which probability a certificate holds.
    variables: the weights, a tree of arrays.
    images: `data.Images` or `data.Stream`; the first and last 100 are hashed.
    constants: dict of numbers that the proof took from the weights, such as a Lipschitz constant, or
      None.

  Returns:
    A dict of JSON values.

  Example:
    >>> from certjax import smoothing
    >>> images = data.Images(np.zeros((1, 2, 2, 1), np.uint8), np.array([1]), np.array([20]))
    >>> weights = {'kernel': np.zeros((4, 2), np.float32)}
    >>> said = header('certify', {'alpha': 0.001}, smoothing.gaussian(sigma=0.25), '0.999', weights, images)
    >>> said['norm'], said['num_images'], said['alpha']
    ('l2', 1, 0.001)
  """
  return {
    'kind': kind,
    'config': config,
    **({'alpha': config['alpha']} if 'alpha' in config else {}),
    'norm': smoothing.norm,
    'unit': smoothing.unit,
    'quantifier': quantifier,
    'sampler': _sampler(smoothing),
    **({'constants': constants} if constants else {}),
    'weights_sha256': records.fingerprint(jax.tree.map(np.asarray, variables)),
    'images_sha256': data.fingerprint(images),
    'num_images': len(images.index),
    'program': program(),
  }


def _sampler(smoothing):
  """Which code draws the noise: `smoothing._gaussian`'s float32 normals, `_grid`'s integers, ..."""
  draw = getattr(smoothing, 'sample', None)
  if draw is None:  # A margin, or bounds: nothing is drawn.
    return 'none'
  draw = getattr(draw, 'func', draw)
  return f'{draw.__module__}.{draw.__qualname__}'


def program() -> dict:
  """Versions and flags that may change a vote, as JSON values.

  Returns:
    A dict.

  Example:
    >>> program()['key_implementation']
    'threefry2x32'
  """
  flags = os.environ.get('XLA_FLAGS', '').split()
  device = jax.local_devices()[0]
  return {
    'certjax': certjax.__version__,
    'jax': jax.__version__,
    'jaxlib': jaxlib.__version__,  # pyright: ignore[reportPrivateImportUsage] # Named nowhere else.
    'numpy': np.__version__,
    'scipy': scipy.__version__,
    'platform': device.platform,
    'device_kind': device.device_kind,
    'machine': platform.machine(),
    'key_implementation': str(jax.random.key_impl(jax.random.key(0))),
    'threefry_partitionable': bool(_setting('jax_threefry_partitionable')),
    'matmul_precision': str(_setting('jax_default_matmul_precision')),
    'xla_flags': sorted(f for f in flags if 'host_platform_device_count' not in f),
  }


def _setting(name):
  """Of `jax.config`, whose attributes are made at run time."""
  return getattr(jax.config, name)
