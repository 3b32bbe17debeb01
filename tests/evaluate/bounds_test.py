"""Certificates by bounds over a data set: exact on linear models, one image a record, nothing by NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import bounds, certify, configs, data, evaluate, models
from certjax.certify import ABSTAIN

SHAPE = (2, 2, 1)
W = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(np.float32)
X = np.random.default_rng(1).integers(60, 196, (6, *SHAPE)).astype(np.uint8)
IMAGES = data.Images(X, np.arange(6, dtype=np.int32) % 3, np.arange(6))


def linear(x):
  return x.reshape(len(x), -1) @ W


def network(model_fn=linear, **options):
  return evaluate.bounded_network(model_fn, certify.bounded(**options), shape=SHAPE)


def distances(norm, model=W):
  """The exact distance of each image to its nearest rival; the balls lie inside [0, 1]."""
  x, weights = X.reshape(6, -1) / 255.0, model.astype(np.float64)
  logits, dual = x @ weights, {'linf': 1, 'l2': 2, 'l1': np.inf}[norm]
  label = logits.argmax(1)
  apart = np.linalg.norm(weights.T[label][:, None] - weights.T[None], dual, axis=2)
  gap = logits[np.arange(6), label][:, None] - logits
  gap[np.arange(6), label], apart[np.arange(6), label] = np.inf, 1
  return label, (gap / apart).min(axis=1)


@pytest.mark.parametrize('norm', ['linf', 'l2', 'l1'])
def test_a_linear_classifier_to_its_boundary(norm):
  label, exact = distances(norm)
  proof = evaluate.bounded_certificate(
    network(eps=0.2, norm=norm, bound='ibp', largest=True), X / 255.0
  )
  assert proof.label.tolist() == label.tolist()
  assert (proof.radius <= np.minimum(exact, 0.2)).all()
  np.testing.assert_allclose(proof.radius, np.minimum(exact, 0.2), atol=1e-6)


def test_records_of_one_radius():
  """Radius eps where it is proved, 0 with the class elsewhere; the same one by one and as a batch."""
  label, exact = distances('linf')
  eps = float(np.median(exact))
  bounded = network(eps=eps, bound='crown')
  found = list(evaluate.bounded_records(bounded, IMAGES))
  assert [list(record) for record, _ in found] == [['index', 'label', 'predict', 'radius']] * 6
  assert [record['index'] for record, _ in found] == list(range(6))
  assert [record['predict'] for record, _ in found] == label.tolist()
  assert [record['radius'] for record, _ in found] == np.where(exact > eps, eps, 0).tolist()
  assert 0 < sum(record['radius'] > 0 for record, _ in found) < 6
  proof = evaluate.bounded_certificate(bounded, data.to_float(X))
  assert proof.radius.tolist() == [record['radius'] for record, _ in found]
  there = bounds.verify(linear, data.to_float(X), eps)
  assert (there.label[exact > eps] >= 0).all() and (there.label[exact <= eps] == ABSTAIN).all()


def test_it_stops_between_images():
  asked = iter([False, False, True])
  done = evaluate.bounded_records(network(eps=0.01), IMAGES, stop=lambda: next(asked))
  assert len(list(done)) == 2


def test_nan_weights_abstain():
  proof = evaluate.bounded_certificate(network(lambda x: linear(x) * jnp.nan, eps=0.01), X / 255.0)
  assert (proof.label == ABSTAIN).all() and (proof.radius == 0).all()


def test_prove():
  label, exact = distances('linf')
  eps = float(np.median(exact))
  run = configs.prove(linear, X, label, method='ibp', eps=eps)
  assert run.certificate.radius.tolist() == np.where(exact > eps, eps, 0).tolist()
  assert run.header == {'norm': 'linf', 'unit': 'pixel value', 'quantifier': 'exact'}
  run = configs.prove(
    linear, X, label, method='crown', eps=0.2, norm='l2', largest=True, slope='zero'
  )
  np.testing.assert_allclose(run.certificate.radius, np.minimum(distances('l2')[1], 0.2), atol=1e-6)


@pytest.mark.parametrize(
  'options, said',
  [
    ({}, 'say the radius to verify'),
    ({'eps': 0.0}, '`eps` must be positive'),
    ({'eps': float('nan')}, '`eps` must be positive'),
    ({'eps': 8}, 'for grey levels divide by 255'),
    ({'eps': 0.1, 'norm': 'l0'}, '`norm` must be one of linf, l2, l1'),
    ({'eps': 0.1, 'bound': 'zonotope'}, '`bound` must be one of ibp, crown-ibp, crown'),
    ({'eps': 0.1, 'slope': 'half'}, '`slope` must be one of'),
    ({'eps': 0.1, 'num_steps': 1.5}, '`num_steps` must be a whole number'),
    ({'eps': 0.1, 'chunk': 0}, '`chunk` must be a whole number, 1 or more'),
    ({'eps': 0.1, 'bound': 'ibp', 'slope': 'same'}, 'are of linear bounds'),
  ],
)
def test_bad_options(options, said):
  with pytest.raises(ValueError, match=said):
    certify.bounded(**options)


@pytest.mark.parametrize(
  'model_fn, said',
  [
    (lambda x: jnp.sin(linear(x)), "no bound is known for the primitive 'sin'"),
    (lambda x: x.reshape(len(x), -1) @ W.T, '`model_fn` does not take images of shape .2, 2, 1.'),
    (lambda x: jnp.ones((len(x), 3)), 'must map'),
  ],
)
def test_models_without_bounds(model_fn, said):
  with pytest.raises(ValueError, match=said):
    network(model_fn, eps=0.1)


def test_a_slope_is_the_bound_that_is_used():
  """On a network with unstable neurons the radii differ, and none exceeds what points refute."""
  module = models.FeedForward(3, hidden=(8, 8))
  model_fn = models.bind(module, module.init(jax.random.key(3), jnp.zeros((1, *SHAPE))))
  radii = {}
  for slope in ('zero', 'same'):
    bounded = network(model_fn, eps=0.5, largest=True, slope=slope, bound='crown-ibp')
    radii[slope] = evaluate.bounded_certificate(bounded, X[:2] / 255.0).radius
  least = network(model_fn, eps=0.5, largest=True, bound='ibp')
  interval = evaluate.bounded_certificate(least, X[:2] / 255.0).radius
  assert (radii['zero'] != radii['same']).any()
  for radius in radii.values():
    assert (interval <= radius).all() and (radius > 0).all()
