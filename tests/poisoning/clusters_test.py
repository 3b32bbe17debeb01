"""The certificate of two named clusters against every labelling and every set of flips."""

import itertools

import numpy as np
import pytest

from certjax.poisoning import two_clusters


@pytest.mark.parametrize('clusters', [(0, 0, 1, 1, 1), (0, 1, 0, 1), (1, 1, 1), (0,)])
def test_largest_number_of_flips_that_changes_no_answer(clusters):
  """All flips of all labellings: none within the radius changes an answer, some of one more does."""
  clusters, queries = np.array(clusters), np.array([[0, 1]])
  size = len(clusters)
  answers, changed = {}, {}
  for labels in itertools.product((0, 1), repeat=size):
    answers[labels] = two_clusters(clusters, labels, queries)
    assert answers[labels].label.shape == (1, 2)
  for labels, found in answers.items():
    for other, flipped in answers.items():
      flips = sum(a != b for a, b in zip(labels, other, strict=True))
      if (found.label != flipped.label).any():
        assert (found.label != flipped.label).all()  # Names are exchanged for both.
        changed[labels] = min(flips, changed.get(labels, size + 1))
    assert (found.radius == changed[labels] - 1).all()
  votes = {labels: np.sum(clusters == labels) for labels in answers}
  assert all(
    (answers[labels].label[0] == ([0, 1] if 2 * agree >= size else [1, 0])).all()
    for labels, agree in votes.items()
  )


def test_the_published_number():
  """13,007 images of 1 and 7, of which 12,456 agree with their cluster: 5,952 flips, either way."""
  clusters = np.zeros(13_007, int)
  labels = np.repeat([0, 1], [12_456, 551])
  assert two_clusters(clusters, labels, [0]).radius.tolist() == [5952]
  exchanged = two_clusters(clusters, 1 - labels, [0])
  assert exchanged.radius.tolist() == [5952] and exchanged.label.tolist() == [1]


def test_errors():
  with pytest.raises(ValueError, match=r'`labels` must be 0 or 1, got \[7\]'):
    two_clusters([0, 1], [1, 7], [0])
  with pytest.raises(ValueError, match=r'a label for each sample, got \[2\] and \[3\]'):
    two_clusters([0, 1], [1, 1, 0], [0])
  with pytest.raises(ValueError, match=r'got \[0\] and \[0\]'):
    two_clusters([], [], [0])
