"""Files of weights: every format, no code from any of them, one line for each broken one."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from certjax import models

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def raw(value):
  """The instructions that build a plain value."""
  return pickle.dumps(value, 2)[2:-1]


def tensor(key='0', numel=6, offset=0, size=(2, 3), stride=(3, 1), kind='FloatStorage'):
  """The instructions that PyTorch writes for a tensor."""
  storage = b'(' + raw('storage') + f'ctorch\n{kind}\n'.encode()
  storage += raw(key) + raw('cpu') + raw(numel) + b'tQ'
  rest = raw(offset) + raw(size) + raw(stride) + raw(False) + b'ccollections\nOrderedDict\n)R'
  return b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + rest + b'tR'


def program(value):
  """A pickle of {'w': value}."""
  return b'\x80\x02}' + raw('w') + value + b's.'


def zip_file(program, *, data=bytes(24), order=b'little', method=zipfile.ZIP_STORED):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', method) as archive:
    archive.writestr('archive/data.pkl', program)
    archive.writestr('archive/byteorder', order)
    archive.writestr('archive/data/0', data)
  return buffer.getvalue()


def legacy_file(program, *, data=bytes(24), numel=6, little=True):
  head = [MAGIC, VERSION, {'protocol_version': VERSION, 'little_endian': little}]
  head = b''.join(pickle.dumps(value, 2) for value in head)
  return head + program + pickle.dumps(['0'], 2) + struct.pack('<q', numel) + data


def safetensors_file(arrays, **changes):
  header, body = {'__metadata__': {'format': 'pt'}}, b''
  for name, (dtype, array) in arrays.items():
    span = [len(body), len(body) + array.nbytes]
    header[name] = {'dtype': dtype, 'shape': array.shape, 'data_offsets': span} | changes
    body += array.tobytes()
  text = json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + body


def read(tmp_path, data):
  path = tmp_path / 'weights.pth.tar'
  path.write_bytes(data)
  return models.read_state_dict(path)


SIX = np.arange(6, dtype='<f4')
CONTAINERS = pytest.mark.parametrize('container', [zip_file, legacy_file])


@CONTAINERS
def test_offsets_and_strides(tmp_path, container):
  """A tensor may show its storage transposed, or only a part of it."""
  views = {
    (0, (2, 3), (3, 1)): SIX.reshape(2, 3),
    (0, (3, 2), (1, 3)): SIX.reshape(2, 3).T,
    (1, (2,), (2,)): SIX[[1, 3]],
    (5, (), ()): SIX[5],
    (4, (0, 7), (7, 1)): np.zeros((0, 7)),
  }
  for (offset, size, stride), expected in views.items():
    value = tensor(offset=offset, size=size, stride=stride)
    found = read(tmp_path, container(program(value), data=SIX.tobytes()))['w']
    assert found.shape == expected.shape and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@CONTAINERS
@pytest.mark.parametrize(
  'offset, size, stride',
  [(1, (2, 3), (3, 1)), (0, (2, 3), (4, 1)), (6, (1,), (1,)), (-1, (2,), (1,)), (0, (7,), (0,)),
   (0, (2,), (-1,)), (5, (2,), (-1,)), (0, (-1, -1), (1, 1)), (0, (2, 3), (1,)),
   (0, (2**40, 2**40), (0, 0)), (2**70, (1,), (1,)), (0.0, (1,), (1,))],
)  # fmt: skip
def test_tensors_outside_their_storage(tmp_path, container, offset, size, stride):
  value = tensor(offset=offset, size=size, stride=stride)
  with pytest.raises(ValueError, match='^cannot read weights from '):
    read(tmp_path, container(program(value)))


def test_types(tmp_path):
  """Halves and bfloat16 exactly; bfloat16 is the upper half of a float32."""
  bfloat16 = np.array([1.0, -2.5, 3e38], '<f4').view('<u4')
  upper, expected = (bfloat16 >> 16).astype('<u2'), (bfloat16 & 0xFFFF0000).view('<f4')
  rows = [
    ('HalfStorage', 'F16', np.array([1.5, -2, 6e4], '<f2'), None),
    ('DoubleStorage', 'F64', np.array([1.5, -2, 1e300]), None),
    ('LongStorage', 'I64', np.array([1, -2, 2**40]), None),
    ('ByteStorage', 'U8', np.array([1, 2, 255], np.uint8), None),
    ('BoolStorage', 'BOOL', np.array([True, False, True]), None),
    ('BFloat16Storage', 'BF16', upper, expected),
  ]
  for kind, code, stored, expected in rows:
    value = program(tensor(numel=3, size=(3,), stride=(1,), kind=kind))
    data = stored.tobytes()
    for file in (
      zip_file(value, data=data),
      legacy_file(value, data=data, numel=3),
      safetensors_file({'w': (code, stored)}),
    ):
      found = read(tmp_path, file)['w']
      np.testing.assert_array_equal(found, stored if expected is None else expected)


def test_safetensors_and_npz(tmp_path):
  arrays = {
    'b': ('F32', SIX.reshape(3, 2)),
    'a': ('F32', SIX[:0]),
    'c': ('I32', np.array(7, '<i4')),
  }
  found = read(tmp_path, safetensors_file(arrays))
  assert set(found) == {'a', 'b', 'c'} and found['c'] == 7
  np.testing.assert_array_equal(found['b'], SIX.reshape(3, 2))
  np.savez(tmp_path / 'x.npz', **found)
  again = models.read_state_dict(tmp_path / 'x.npz')
  np.testing.assert_array_equal(again['b'], found['b'])


@pytest.mark.parametrize(
  'changes, text',
  [({'data_offsets': [0, 28]}, 'has 28 bytes'), ({'data_offsets': [4, 28]}, 'not inside the file'),
   ({'data_offsets': [-4, 20]}, 'not inside the file'), ({'shape': [-2, -3]}, 'has 24 bytes'),
   ({'shape': [7]}, 'has 24 bytes'), ({'dtype': 'F99'}, "damaged .KeyError: 'F99'"),
   ({'shape': 'ab'}, 'damaged'), ({'data_offsets': None}, 'damaged'),
   ({'shape': [1], 'data_offsets': [0, 4]}, '20 bytes belong to no tensor')],
)  # fmt: skip
def test_broken_safetensors(tmp_path, changes, text):
  with pytest.raises(ValueError, match=text):
    read(tmp_path, safetensors_file({'w': ('F32', SIX)}, **changes))


class Evil:
  """Unpickled by Python, it calls something."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def attacks(marker):
  """(name, instructions that push something evil, what the refusal names)."""
  command = f'touch {marker}'
  text = raw(command)
  return [
    ('os.system, protocol 2', pickle.dumps(Evil(os.system, command), 2)[2:-1], 'system'),
    ('os.system, protocol 4', pickle.dumps(Evil(os.system, command), 4)[11:-1], 'system'),
    ('eval', b'c__builtin__\neval\n' + raw('1') + b'\x85R', '__builtin__.eval'),
    ('builtins.eval', b'cbuiltins\neval\n' + raw('1') + b'\x85R', 'builtins.eval'),
    ('named, never called', b'cos\nsystem\n', 'os.system'),
    ('dots', raw('collections') + raw('OrderedDict.fromkeys') + b'\x93', 'OrderedDict.fromkeys'),
    ('dots in GLOBAL', b'ctorch._utils\n_rebuild_tensor_v2.__globals__\n', '__globals__'),
    ('storages from bytes', b'ctorch.storage\n_load_from_bytes\n', '_load_from_bytes'),
    ('INST', b'(' + text + b'ios\nsystem\n', 'INST'),
    ('OBJ', b'(cos\nsystem\n' + text + b'o', 'os.system'),
    ('NEWOBJ', b'ccollections\nOrderedDict\n)\x81', 'NEWOBJ'),
    ('EXT1', b'\x82\x01', 'EXT1'),
    ('a storage called', b'ctorch\nFloatStorage\n)R', 'it calls'),
    ('a string called', text + b')R', 'it calls'),
  ]


@CONTAINERS
@pytest.mark.parametrize('case', range(len(attacks(''))), ids=[row[0] for row in attacks('')])
def test_checkpoints_run_no_code(tmp_path, container, case):
  marker = tmp_path / 'touched'
  _, evil, named = attacks(marker)[case]
  with pytest.raises(ValueError, match='must not be able to run code') as error:
    read(tmp_path, container(program(evil)))
  assert named in str(error.value) and '\n' not in str(error.value)
  assert not marker.exists()


def test_the_attack_is_real(tmp_path):
  """What is refused above does run where Python unpickles it."""
  for protocol, (_, evil, _) in zip((2, 4), attacks(tmp_path / 'touched')[:2], strict=False):
    pickle.loads(b'\x80' + bytes([protocol]) + evil + b'.')
    (tmp_path / 'touched').unlink()


def good_files():
  value = program(tensor())
  return [zip_file(value), legacy_file(value), safetensors_file({'w': ('F32', SIX.reshape(2, 3))})]


@pytest.mark.parametrize('kind', range(3), ids=['zip', 'legacy', 'safetensors'])
def test_damaged_files(tmp_path, kind):
  """Cut off anywhere: ValueError. A changed byte: ValueError, or other numbers."""
  good = good_files()[kind]
  assert read(tmp_path, good)['w'].shape == (2, 3)
  for length in range(0, len(good), 3):
    with pytest.raises(ValueError, match='^cannot read weights from '):
      read(tmp_path, good[:length])
  rng = np.random.default_rng(0)
  for _ in range(500):
    damaged = bytearray(good)
    damaged[rng.integers(len(good))] = rng.integers(256)
    try:
      assert all(isinstance(a, np.ndarray) for a in read(tmp_path, bytes(damaged)).values())
    except ValueError as error:
      assert str(error).startswith('cannot read weights from ')


def test_random_bytes(tmp_path):
  rng = np.random.default_rng(0)
  starts = [b'', b'PK\x03\x04', good_files()[1][:16], struct.pack('<Q', 9) + b'{', b'\x80\x02']
  for start in starts:
    for length in (0, 1, 30, 300):
      with pytest.raises(ValueError, match='^cannot read weights from '):
        read(tmp_path, start + rng.bytes(length))


@pytest.mark.parametrize(
  'data, text',
  [
    (zip_file(program(tensor()), order=b'big'), 'big-endian'),
    (legacy_file(program(tensor()), little=False), 'big-endian'),
    (zip_file(program(tensor()), method=zipfile.ZIP_DEFLATED), 'compressed'),
    (zip_file(program(tensor()), data=bytes(20)), 'cut off'),
    (zip_file(program(tensor(key='1'))), 'archive/data/1'),
    (legacy_file(program(tensor(numel=7))), 'cut off'),
    (zip_file(b'\x80\x02' + raw([1, 2]) + b'.'), 'no state dict: save one'),
    (zip_file(program(raw(3))), 'no state dict, only w'),
    (bytes(257) + b'ustar' + bytes(250), 'tar archive: unpack it'),
    (b'\x89PNG', 'neither safetensors nor'),
  ],
)
def test_refusals_say_why(tmp_path, data, text):
  with pytest.raises(ValueError, match=text):
    read(tmp_path, data)


def test_missing_file(tmp_path):
  with pytest.raises(ValueError, match='cannot read weights from .*nowhere'):
    models.read_state_dict(tmp_path / 'nowhere')


def test_a_huge_memo_index_costs_nothing(tmp_path):
  """LONG_BINPUT with 2^32 - 1 makes Python's own unpickler fill a table of that length."""
  put = program(tensor())[:-1] + b'r\xff\xff\xff\xff.'
  assert read(tmp_path, zip_file(put))['w'].shape == (2, 3)
