"""PyTorch checkpoints without PyTorch, and without running what they contain.

A pickle is a program, and Python's unpickler runs it. Here a small interpreter knows the
instructions that build containers, numbers, strings and tensors; every other instruction, and
every global outside one short list, is refused. Nothing is imported or called by name, so a
checkpoint cannot run code. Both formats of `torch.save` are read: the zip archive (since 1.6)
and the sequence of pickles and raw storages before it, in which the checkpoints of 2019 are.
"""

import io
import math
import operator
import pickletools
from typing import Any, NamedTuple

import numpy as np

BFLOAT16 = 'bfloat16'  # Unknown to numpy: the upper half of a float32.
_STORAGES = {
  'torch DoubleStorage': '<f8', 'torch FloatStorage': '<f4', 'torch HalfStorage': '<f2',
  'torch BFloat16Storage': BFLOAT16, 'torch LongStorage': '<i8', 'torch IntStorage': '<i4',
  'torch ShortStorage': '<i2', 'torch CharStorage': '<i1', 'torch ByteStorage': '<u1',
  'torch BoolStorage': '?',
}  # fmt: skip
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # The magic number, pickled.
_STATE_DICTS = ('state_dict', 'model_state_dict', 'model', 'net')


class _Global(NamedTuple):
  name: str


class _Storage(NamedTuple):
  key: str
  dtype: str
  numel: int


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  size: tuple
  stride: tuple


def read_zip(archive) -> dict[str, np.ndarray]:
  """The state dict in a `zipfile.ZipFile` written by `torch.save`."""
  pickles = [name for name in archive.namelist() if name.endswith('/data.pkl')]
  if len(pickles) != 1:
    raise ValueError(f'it holds {len(pickles)} files data.pkl, a checkpoint holds one')
  root = pickles[0].removesuffix('data.pkl')
  if f'{root}byteorder' in archive.namelist():
    _check_byte_order(_stored(archive, f'{root}byteorder') == b'little')
  checkpoint = _interpret(io.BytesIO(_stored(archive, pickles[0])))
  return _arrays(checkpoint, lambda storage: _stored(archive, f'{root}data/{storage.key}'))


def read_legacy(data: bytes) -> dict[str, np.ndarray]:
  """The state dict in the bytes that `torch.save` wrote before PyTorch 1.6."""
  file, storages = io.BytesIO(data), {}
  magic, version, system = (_interpret(file) for _ in range(3))
  if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION):
    raise ValueError(f'unknown version {version} of the format')
  _check_byte_order(system['little_endian'])
  checkpoint, keys = _interpret(file, storages), _interpret(file)
  buffers = {}
  for key in keys:
    numel = int.from_bytes(file.read(8), 'little')
    buffers[key] = file.read(numel * itemsize(storages[key].dtype))
  return _arrays(checkpoint, lambda storage: buffers[storage.key])


def numbers(data, dtype: str) -> np.ndarray:
  """The numbers in a buffer; bfloat16 as float32, which holds them exactly."""
  if dtype == BFLOAT16:
    return (np.frombuffer(data, '<u2').astype('<u4') << 16).view('<f4')
  return np.frombuffer(data, dtype)


def itemsize(dtype: str) -> int:
  """Bytes of one number."""
  return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def _stored(archive, name):
  """An entry; PyTorch stores without compression, so nothing grows beyond the file's size."""
  if archive.getinfo(name).compress_type != 0:
    raise ValueError(f'its entry {name} is compressed, which torch.save never does')
  return archive.read(name)


def _check_byte_order(little):
  if little is not True:
    raise ValueError('it was written on a big-endian machine')


def _arrays(checkpoint, read_storage):
  """The state dict of a checkpoint, which may be the checkpoint itself, as arrays."""
  if not isinstance(checkpoint, dict):
    raise ValueError('it holds no state dict: save one, torch.save(model.state_dict(), path)')
  for found in (checkpoint, *(checkpoint.get(name) for name in _STATE_DICTS)):
    if isinstance(found, dict) and found and all(isinstance(t, _Tensor) for t in found.values()):
      buffers = {tensor.storage: None for tensor in found.values()}  # Several may share one.
      buffers = {storage: read_storage(storage) for storage in buffers}
      return {str(name): _array(tensor, buffers[tensor.storage]) for name, tensor in found.items()}
  raise ValueError(f'it holds no state dict, only {", ".join(map(str, list(checkpoint)[:5]))}')


def _array(tensor, data):
  """A copy of the part of a storage that a tensor shows."""
  (_, dtype, numel), offset = tensor.storage, operator.index(tensor.offset)
  size, stride = (tuple(map(operator.index, axes)) for axes in (tensor.size, tensor.stride))
  if len(data) != numel * itemsize(dtype):
    raise ValueError(f'a storage of {numel} numbers has {len(data)} bytes: the file is cut off')
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  inside = min((offset, *size, *stride)) >= 0 and (math.prod(size) == 0 or last < numel)
  if not inside or math.prod(size) > numel:
    raise ValueError(f'a tensor {size}, strides {stride}, offset {offset} exceeds its storage')
  flat = numbers(data, dtype)
  steps = [step * flat.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False).copy()


def _interpret(file, storages=None) -> Any:
  """The object that a pickle builds, tensors and storages as descriptions.

  Args:
    file: positioned at its start; afterwards at its end.
    storages: filled with what the pickle refers to, key -> `_Storage`.
  """
  stack, memo, storages = [], {}, {} if storages is None else storages
  for instruction, argument, _ in pickletools.genops(file):
    name = instruction.name
    if name in _VALUES:
      stack.append(argument)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name == 'MARK':
      stack.append(_MARK)
    elif name == 'TUPLE':
      stack.append(tuple(_to_mark(stack)))
    elif name in _TUPLES:
      stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name in ('APPEND', 'APPENDS'):
      items = _to_mark(stack) if name == 'APPENDS' else [stack.pop()]
      stack[-1].extend(items)
    elif name in ('SETITEM', 'SETITEMS'):
      items = _to_mark(stack) if name == 'SETITEMS' else [stack.pop(-2), stack.pop()]
      stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name in ('BINPUT', 'LONG_BINPUT'):
      memo[argument] = stack[-1]
    elif name == 'MEMOIZE':
      memo[len(memo)] = stack[-1]
    elif name in ('BINGET', 'LONG_BINGET'):
      stack.append(memo[argument])
    elif name == 'GLOBAL':
      stack.append(_known(argument))
    elif name == 'STACK_GLOBAL':
      stack[-2:] = [_known(f'{stack[-2]} {stack[-1]}')]
    elif name == 'REDUCE':
      stack[-2:] = [_build(*stack[-2:])]
    elif name == 'BUILD':
      stack.pop()  # Attributes of a dict, such as the versions of its modules: not needed.
    elif name == 'BINPERSID':
      storage = _storage(stack.pop())
      stack.append(storages.setdefault(storage.key, storage))
    elif name == 'STOP':
      return stack.pop()
    elif name not in ('PROTO', 'FRAME'):
      raise ValueError(f'it holds the pickle instruction {name}{_REFUSED}')


_MARK = object()
_VALUES = (
  'BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE',
  'BINUNICODE8', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES',
)  # fmt: skip
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': set}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_REFUSED = (
  ', which no list of tensors needs: a checkpoint must not be able to run code. Save the weights '
  'alone, torch.save(model.state_dict(), path)'
)


def _to_mark(stack):
  """Pops everything above the last mark."""
  items = []
  while (item := stack.pop()) is not _MARK:
    items.append(item)
  return items[::-1]


def _known(name):
  """The description of a global on the list; any other is refused, called or not."""
  if name not in _BUILDERS and name not in _STORAGES:
    raise ValueError(f'it asks for {name.replace(" ", ".")}{_REFUSED}')
  return _Global(name)


_BUILDERS = {
  'collections OrderedDict': lambda items=(): dict(items),
  'torch Size': lambda size=(): tuple(size),
  'torch._utils _rebuild_tensor_v2': lambda storage, offset, size, stride, *_: _Tensor(
    storage, offset, size, stride
  ),
  'torch._utils _rebuild_parameter': lambda tensor, *_: tensor,
}


def _build(function, arguments):
  """What calling a global on the list gives."""
  if not isinstance(function, _Global) or function.name not in _BUILDERS:
    raise ValueError(f'it calls {function}{_REFUSED}')
  return _BUILDERS[function.name](*arguments)


def _storage(identity):
  """('storage', type, key, device, numel), and before 1.6 a view, which is None."""
  kind, dtype, key, _, numel, *view = identity
  if kind != 'storage' or any(part is not None for part in view):
    raise ValueError(f'it refers to a {kind} in a way that certjax does not read')
  return _Storage(str(key), _STORAGES[dtype.name], operator.index(numel))
