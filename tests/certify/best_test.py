"""The largest of several proofs: by hand, by brute force, and what contradicts itself."""

import numpy as np
import pytest

from certjax import certify

NAN, INF = float('nan'), float('inf')


def test_by_hand():
  first = certify.certificate([0, 1, 2, -1, 4, 5], [0.5, 0.25, 0.0, 0.0, INF, 0.1])
  second = certify.certificate([0, -1, 2, -1, 4, 5], [0.75, 0.0, 0.0, 0.0, 1.0, NAN])
  best = certify.best_of(first, second)
  assert best.label.tolist() == [0, 1, 2, -1, 4, 5]
  assert best.radius.tolist() == [0.75, 0.25, 0.0, 0.0, INF, 0.1]
  assert best.label.dtype == np.int64 and best.radius.dtype == np.float64


def test_neither_order_nor_repetition_matters():
  """Against a loop over images, with abstentions, over many draws."""
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 3, (4, 50))
  proofs = [
    certify.certificate(
      np.where(rng.random(truth.shape) < 0.3, -1, truth),
      np.round(rng.exponential(size=truth.shape), 1),
    )
    for _ in range(4)
  ]
  best = certify.best_of(*proofs)
  for index in np.ndindex(truth.shape):
    spoken = [p.radius[index] for p in proofs if p.label[index] >= 0]
    assert best.label[index] == (truth[index] if spoken else -1)
    assert best.radius[index] == max(spoken, default=0.0)
  for again in (certify.best_of(*proofs[::-1]), certify.best_of(best, *proofs)):
    np.testing.assert_array_equal(again.label, best.label)
    np.testing.assert_array_equal(again.radius, best.radius)
  np.testing.assert_array_equal(certify.best_of(proofs[0]).radius, proofs[0].radius)


def test_a_contradiction_is_an_error_or_an_abstention():
  """Not of the two largest alone: the third knows another class."""
  labels, radii = [[0, 1], [0, 1], [0, 2]], [[0.1, 0.5], [0.1, 0.4], [0.2, 0.1]]
  proofs = [certify.certificate(*pair) for pair in zip(labels, radii, strict=True)]
  with pytest.raises(ValueError, match=r'contradict .* first at \(1,\): labels \[1, 1, 2\]'):
    certify.best_of(*proofs)
  best = certify.best_of(*proofs, conflict='abstain')
  assert best.label.tolist() == [0, -1] and best.radius.tolist() == [0.2, 0.0]


def test_a_label_with_radius_0_gives_way():
  tie, other, proof = (certify.certificate(y, r) for y, r in ((0, 0.0), (1, 0.0), (1, 0.5)))
  assert certify.best_of(tie, proof) == certify.certificate(1, 0.5)
  assert certify.best_of(tie, other) == certify.certificate(-1, 0.0)


def test_exact_ones_of_a_linear_classifier():
  """Lipschitz margin (sqrt 2), rows of the last layer (exact): the exact one wins everywhere."""
  rng = np.random.default_rng(1)
  rows = rng.normal(size=(4, 6))
  rows /= np.linalg.norm(rows, 2)
  logits = rng.normal(size=(30, 6)) @ rows.T
  loose, exact = certify.margin(logits), certify.margin(logits, last_layer=rows)
  best = certify.best_of(loose, exact)
  np.testing.assert_array_equal(best.radius, exact.radius)
  assert (best.radius > loose.radius).any()


@pytest.mark.parametrize(
  'call, said',
  [
    (lambda: certify.best_of(), '`certificates` must be one or more'),
    (
      lambda: certify.best_of(certify.certificate(0, 1.0), certify.certificate([0], [1.0])),
      '`certificates` must be one or more of the same images',
    ),
    (lambda: certify.best_of(conflict='first'), '`conflict` must be one of raise, abstain'),
  ],
)
def test_bad_input(call, said):
  with pytest.raises(ValueError, match=said):
    call()
