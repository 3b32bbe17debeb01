"""Margins of Lipschitz networks: closed forms, tightness, rounding, what proves nothing."""

from fractions import Fraction

import numpy as np
import pytest

from certjax import certify, testing

LOGITS = [2.0, 0.7, -0.3]
ROWS = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, -0.6, 0.8]]


def test_reference_values():
  assert abs(certify.margin(LOGITS).radius - 0.9192388155) < 1e-9
  scaled = certify.margin(LOGITS, lipschitz=1 / 0.2507)
  assert abs(scaled.radius - 0.2304531711) < 1e-9
  assert abs(certify.margin(LOGITS, last_layer=ROWS).radius - 1.453444185) < 1e-9


def test_every_rival_counts_not_only_the_runner_up():
  """The second class is close in logits and far in weights, the third the other way round."""
  rows = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.02]])
  proof = certify.margin([1.0, 0.9, 0.99], last_layer=rows)
  assert abs(proof.radius - 0.1 / 2) < 1e-9
  proof = certify.margin([1.0, 0.5, 0.99], last_layer=rows)
  assert abs(proof.radius - 0.25) < 1e-9


def test_a_linear_network_is_certified_to_its_boundary_and_not_beyond():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(5, 7))
  x = rng.normal(size=(200, 7))
  proof = certify.margin(x @ rows.T, last_layer=rows)
  testing.check_certificate(proof, 5)
  for point, label, radius in zip(x, proof.label, proof.radius, strict=True):
    apart = rows[label] - np.delete(rows, label, axis=0)
    exact = ((apart @ point) / np.linalg.norm(apart, axis=1)).min()
    assert exact * (1 - 1e-9) - 1e-10 < radius < exact


def test_never_above_the_exact_radius():
  """In rationals: (f_y - f_j)^2 >= radius^2 * 2 L^2, strictly."""
  rng = np.random.default_rng(1)
  for _ in range(300):
    logits = rng.normal(size=4) * 10.0 ** rng.integers(-6, 6)
    lipschitz = float(rng.uniform(0.1, 10))
    proof = certify.margin(logits, lipschitz=lipschitz)
    top, second = (Fraction(float(value)) for value in np.sort(logits)[::-1][:2])
    assert (top - second) ** 2 > Fraction(float(proof.radius)) ** 2 * 2 * Fraction(lipschitz) ** 2


def test_ties_nan_slack_and_single_classes():
  proof = certify.margin([[1.0, 1.0, 0.0], [np.nan, 1.0, 0.0], [1.0, 0.5, np.inf]])
  assert proof.label.tolist() == [0, -1, -1] and proof.radius.tolist()[:2] == [0.0, 0.0]
  assert certify.margin([1.0, 0.8], slack=0.1).radius == 0
  assert certify.margin([1.0, 0.8], slack=0.05).radius < 0.1 / np.sqrt(2) * (1 - 1e-13)
  assert certify.margin([3.0]).radius == np.inf
  assert certify.margin([3.0, 1.0], lipschitz=0.0).radius == np.inf


@pytest.mark.parametrize(
  'arguments, said',
  [
    (dict(logits=[1.0], lipschitz=-1.0), '`lipschitz` must be at least 0'),
    (dict(logits=[1.0], lipschitz=np.nan), '`lipschitz` must be at least 0'),
    (dict(logits=[1.0], lipschitz=np.inf), '`lipschitz` must be at least 0'),
    (dict(logits=[1.0], slack=-1.0), '`slack` must be at least 0'),
    (dict(logits=3.0), '`logits` must be'),
    (dict(logits=[1.0, 2.0], last_layer=ROWS), '`last_layer` must be'),
    (dict(logits=LOGITS, last_layer=np.full((3, 3), np.nan)), '`last_layer` must be'),
  ],
)
def test_bad_arguments(arguments, said):
  with pytest.raises(ValueError, match=said):
    certify.margin(**arguments)
