"""SHA-256 of trees of arrays: what a header says about weights and images."""

import hashlib
import json
from collections.abc import Mapping


def fingerprint(tree):
  """SHA-256 of arrays, their names, dtypes and shapes: of weights, or of decoded images.

  Args:
    tree: bytes, an array, or dicts and lists of such; dicts are read in the order of their keys.

  Returns:
    64 hexadecimal digits.

  Raises:
    ValueError: if a leaf is no array of numbers.

  Example:
    >>> fingerprint({'bias': [1.0], 'kernel': b'01'})[:16]
    '1da9eca806e4131f'
  """
  digest = hashlib.sha256()
  _feed(digest, tree)
  return digest.hexdigest()


def _feed(digest, node):
  """Adds one node; every piece tells its kind and length first, so that no two trees read alike."""

  def tell(*what):
    digest.update(json.dumps(what).encode() + b'\n')

  if isinstance(node, Mapping):
    tell('dict', *sorted(node))
    for key in sorted(node):
      _feed(digest, node[key])
  elif isinstance(node, (list, tuple)):
    tell('list', len(node))
    for child in node:
      _feed(digest, child)
  elif isinstance(node, bytes):
    tell('bytes', len(node))
    digest.update(node)
  else:
    import numpy as np  # Here, so that a writer of records starts fast.

    array = np.asarray(node)
    if array.dtype.kind in 'OUS':
      raise ValueError(f'a fingerprint is of numbers and bytes, got {type(node).__name__}')
    if array.dtype.byteorder == '>':
      array = array.astype(array.dtype.newbyteorder('<'))
    tell('array', array.dtype.name, *array.shape)
    digest.update(array.tobytes())
