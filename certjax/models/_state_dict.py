"""Published weights as a dict of arrays: safetensors, PyTorch's two formats, npz.

The format is told from the content, never from the name: what the field calls `.pth.tar` is
no tar archive. No file can run code, and every way it can be broken ends in a ValueError.
"""

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np

from certjax.models._torch_file import (
  BFLOAT16,
  LEGACY_START,
  itemsize,
  numbers,
  read_legacy,
  read_zip,
)

_TAR = (257, b'ustar')
_SAFETENSORS = {
  'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': BFLOAT16, 'I64': '<i8', 'I32': '<i4',
  'I16': '<i2', 'I8': '<i1', 'U8': '<u1', 'BOOL': '?',
}  # fmt: skip


def read_state_dict(path) -> dict[str, np.ndarray]:
  """The tensors of a file of weights, under the names that stand in it.

  Of a PyTorch checkpoint that holds more than a state dict, its entry `state_dict`,
  `model_state_dict`, `model` or `net`.

  Args:
    path: a safetensors file, what `torch.save` wrote (any version), or an npz archive.

  Returns:
    {name: array}; bfloat16 as float32, every other type as it stands in the file.

  Raises:
    ValueError: for a file that is missing, broken, of another format, or that could run code if
      PyTorch read it.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   np.savez(f'{folder}/weights.npz', **{'fc.bias': np.zeros(10)})
    ...   {name: array.shape for name, array in read_state_dict(f'{folder}/weights.npz').items()}
    {'fc.bias': (10,)}
  """
  try:
    return _read(Path(path).expanduser().read_bytes())
  except Exception as error:  # Of numpy, json, zipfile, pickletools: no common base.
    lines = str(error).strip().splitlines() or ['']
    text = lines[0].rstrip('.')
    if not isinstance(error, ValueError | OSError):  # A lookup that failed in a damaged file.
      text = f'it is damaged ({type(error).__name__}: {text})'
    raise ValueError(f'cannot read weights from {path}: {text}.') from error


def _read(data):
  if data.startswith(b'PK'):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      if all(name.endswith('.npy') for name in archive.namelist()):
        return dict(np.load(io.BytesIO(data), allow_pickle=False))
      return read_zip(archive)
  if data.startswith(LEGACY_START):
    return read_legacy(data)
  if data[8:9] == b'{':
    return _read_safetensors(data)
  if data[_TAR[0] :].startswith(_TAR[1]):
    raise ValueError('it is a tar archive: unpack it and name the file of weights inside')
  raise ValueError('it is neither safetensors nor a checkpoint of PyTorch nor npz')


def _read_safetensors(data):
  """Eight bytes of length, a JSON header, the numbers without a gap."""
  start = 8 + int.from_bytes(data[:8], 'little')
  if start > len(data):
    raise ValueError('its header is longer than the file')
  header = json.loads(data[8:start])
  header.pop('__metadata__', None)
  body, end, arrays = memoryview(data)[start:], 0, {}
  for name, row in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
    dtype, shape, (first, last) = _SAFETENSORS[row['dtype']], row['shape'], row['data_offsets']
    if min([0, *shape]) < 0 or last - first != math.prod(shape) * itemsize(dtype):
      raise ValueError(f'{name} of shape {shape} has {last - first} bytes')
    if first != end or last > len(body):
      raise ValueError(f'{name} lies at {first} .. {last}, not inside the file or not in sequence')
    arrays[name], end = numbers(body[first:last], dtype).reshape(shape).copy(), last
  if end != len(body):
    raise ValueError(f'{len(body) - end} bytes belong to no tensor')
  return arrays
