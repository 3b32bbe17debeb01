"""The header of records changes with whatever the votes depend on, and with nothing else."""

import json

import numpy as np

from certjax import configs, data, evaluate, records


def header(change=lambda arguments: {}):
  """The header of a small run, some of its arguments changed."""
  rng = np.random.default_rng(0)
  arguments = {
    'kind': 'certify',
    'config': {'alpha': 0.001, 'chunk': 100, 'sigma': 0.25},
    'smoothing': configs.build_smoothing('gaussian', sigma=0.25),
    'quantifier': 'probability 1 - alpha per image',
    'variables': {'params': {'w': np.arange(3.0), 'b': np.zeros(2)}, 'batch_stats': {}},
    'images': data.Images(
      rng.integers(0, 256, (250, 2, 2, 1), np.uint8), np.zeros(250, np.int32), np.arange(250)
    ),
  }
  return evaluate.header(**{**arguments, **change(arguments)})


def differing(change):
  """Names of the fields that a change changes."""
  return {phrase.split(' is ')[0] for phrase in records.differences(header(change), header())}


def with_pixel(row):
  def change(arguments):
    pixels = arguments['images'].images.copy()
    pixels[row, 0, 0, 0] ^= 1
    return {'images': arguments['images']._replace(images=pixels)}

  return change


def test_same_inputs_same_header():
  assert header() == header() == json.loads(json.dumps(header()))


def test_weights():
  other = {'params': {'w': np.array([0.0, 1.0, 2.0 + 1e-12]), 'b': np.zeros(2)}, 'batch_stats': {}}
  assert differing(lambda _: {'variables': other}) == {'weights_sha256'}
  renamed = {'params': {'w': np.arange(3.0), 'c': np.zeros(2)}, 'batch_stats': {}}
  assert differing(lambda _: {'variables': renamed}) == {'weights_sha256'}


def test_images():
  for row in (0, 99, 150, 249):  # The first and last hundred.
    assert differing(with_pixel(row)) == {'images_sha256'}
  assert differing(with_pixel(125)) == set()  # The middle is not hashed: as the design says.
  labels = lambda a: {'images': a['images']._replace(labels=np.ones(250, np.int32))}
  assert differing(labels) == {'images_sha256'}
  index = lambda a: {'images': a['images']._replace(index=np.arange(1, 251))}
  assert differing(index) == {'images_sha256'}
  fewer = lambda a: {'images': data.Images(*(array[:50] for array in a['images']))}
  assert differing(fewer) == {'images_sha256', 'num_images'}


def test_settings_and_kind():
  other = {'alpha': 0.01, 'chunk': 100, 'sigma': 0.25}
  assert differing(lambda _: {'config': other}) == {'config.alpha', 'alpha'}
  assert differing(lambda _: {'kind': 'predict'}) == {'kind'}
  uniform = configs.build_smoothing('uniform', sigma=0.25)
  assert differing(lambda _: {'smoothing': uniform}) == {'norm', 'sampler'}
  grid = configs.build_smoothing('gaussian-grid', sigma=0.25, shape=(2, 2, 1))
  assert differing(lambda _: {'smoothing': grid}) == {'sampler'}
  assert '_gaussian' in header()['sampler']
  assert differing(lambda _: {'quantifier': 'exact'}) == {'quantifier'}


def test_a_margin_draws_nothing_and_states_its_constant():
  margin = lambda _: {
    'smoothing': configs.build_smoothing('lipschitz'),
    'constants': {'lipschitz': 2},
  }
  made = header(margin)
  assert made['sampler'] == 'none' and made['constants'] == {'lipschitz': 2}
  assert (made['norm'], made['unit']) == ('l2', 'pixel value')
  assert differing(lambda _: {'constants': {'lipschitz': 2}}) == {'constants'}
  assert 'constants' not in header()


def test_the_program_is_in_it_and_the_device_count_is_not(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  before = header()
  for name in ('jax', 'jaxlib', 'numpy', 'scipy', 'platform', 'device_kind', 'key_implementation'):
    assert before['program'][name]
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=8')
  assert header() == before
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=true')
  assert list(records.differences(header(), before)) == [
    "program.xla_flags is [] there and ['--xla_cpu_enable_fast_math=true'] here"
  ]
