"""Certificates against replaced pixels over a data set: exact on a linear model, by the one method table."""

import numpy as np
import pytest

from certjax import certify, configs, data, evaluate

SHAPE = (2, 2, 1)
W = np.float32([[3, 0, 1], [2, 1, -1], [1, 2, 0], [0, 3, 1]])
X = np.random.default_rng(1).integers(0, 256, (12, *SHAPE)).astype(np.uint8)
IMAGES = data.Images(X, np.arange(12, dtype=np.int32) % 3, np.arange(12))


def linear(x):
  return x.reshape(len(x), -1) @ W


def gaps():
  """(label, the least margin where any one pixel is replaced): in closed form."""
  x, w = X.reshape(12, 4) / 255.0, W.astype(np.float64)
  label = (x @ w).argmax(1)
  apart = w.T[label][:, None] - w.T[None]  # [B, K, D]
  loss = np.minimum(-apart * x[:, None], apart * (1 - x[:, None]))
  least = np.einsum('bkd,bd->bk', apart, x) + loss.min(axis=2)
  least[np.arange(12), label] = np.inf
  return label, least.min(axis=1)


@pytest.mark.parametrize('make, name', [('patch-ibp', 'side'), ('sparse-ibp', 'pixels')])
def test_records_of_one_pixel(make, name):
  """Radius 1 where it is proved, 0 with the class elsewhere."""
  label, least = gaps()
  method = configs.build_smoothing(make, **{name: 1.0})
  network = evaluate.bounded_network(linear, method, shape=SHAPE)
  assert network.num_classes == 3
  found = [record for record, _ in evaluate.bounded_records(network, IMAGES)]
  assert [list(record) for record in found] == [['index', 'label', 'predict', 'radius']] * 12
  assert [record['predict'] for record in found] == label.tolist()
  assert [record['radius'] for record in found] == (least > 0).tolist()
  assert 0 < (least > 0).sum() < 12
  run = configs.prove(linear, X, label, method=make, **{name: 1})
  assert run.certificate.radius.tolist() == (least > 0).tolist()
  assert run.header['norm'] == {'side': 'patch', 'pixels': 'l0'}[name]
  assert run.header['unit'] == {'side': 'patch side', 'pixels': 'pixels'}[name]


@pytest.mark.parametrize(
  'make, options, said',
  [
    (certify.patch_ibp, {}, "say the patch's side: `--parameters side 5`, or `side=5`"),
    (certify.patch_ibp, {'side': 0}, '`side` must be a whole number of pixels, 1 or more, got 0'),
    (certify.patch_ibp, {'side': 2.5}, '`side` must be a whole number'),
    (certify.patch_ibp, {'side': float('nan')}, '`side` must be a whole number'),
    (certify.sparse_ibp, {}, 'say how many pixels the adversary replaces'),
    (certify.sparse_ibp, {'pixels': -1}, '`pixels` must be a whole number'),
  ],
)
def test_bad_options(make, options, said):
  with pytest.raises(ValueError, match=said):
    make(**options)


def test_what_does_not_fit_the_images():
  for method, said in (
    (certify.patch_ibp(side=3), '`side` must be a whole number in 1 .. 2, got 3'),
    (certify.sparse_ibp(pixels=5), '`pixels` must be a whole number in 0 .. 4, got 5'),
  ):
    with pytest.raises(ValueError, match=said):
      evaluate.bounded_network(linear, method, shape=SHAPE)
