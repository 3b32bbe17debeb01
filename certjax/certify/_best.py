r"""Several proofs of one classifier at the same images: each image keeps the largest of its balls.

A proof says "the class is y within radius r". If two hold, both hold, so the larger ball is proved:

  label = y_i,  radius = r_i,   i = argmax_i r_i

Deterministic proofs cost nothing: the maximum of ten is as certain as each. One from samples fails
with probability alpha, and the largest of several fails where any of them does, so their alphas add
up (union bound): for 1 - alpha of the whole, the sampled ones share alpha between them, before
they are drawn.
"""

import numpy as np

from certjax.certify._certificate import ABSTAIN, Certificate, certificate

_CONFLICTS = ('raise', 'abstain')


def best_of(*certificates, conflict='raise') -> Certificate:
  r"""The largest certified ball of each image, over several sound certificates of one classifier.

    radius = max_i radius_i,   with the label of the one that attains it

  A certificate that abstains says nothing. A label with radius 0 gives way to a proof with a positive
  radius (it may be the argmax at a tie, as another program breaks it); two such labels that differ
  abstain. Two positive radii with different labels contradict each other: one of the proofs is of
  another classifier (other weights, another preprocessing, a smoothed one), or, where samples were
  drawn, has met its failure probability.

  Args:
    *certificates: `Certificate`s of the same images and classifier, in one norm and one unit.
    conflict: what to do where they contradict each other: 'raise', or 'abstain' (for certificates
      from samples, which may do so with probability alpha).

  Returns:
    A `Certificate`. Where m of them come from samples, each at failure probability alpha / m, it holds
    with probability 1 - alpha an image.

  Raises:
    ValueError: for no certificate, shapes that differ, an unknown `conflict`, or a contradiction.

  Example:
    >>> a, b = certificate([0, 1, 2], [0.5, 0.25, 0.0]), certificate([0, -1, 2], [0.75, 0.0, 0.5])
    >>> best_of(a, b)
    Certificate(label=array([0, 1, 2]), radius=array([0.75, 0.25, 0.5 ]))
  """
  if conflict not in _CONFLICTS:
    raise ValueError(f'`conflict` must be one of {", ".join(_CONFLICTS)}; got {conflict!r}.')
  proofs = [certificate(*proof) for proof in certificates]
  shapes = {proof.label.shape for proof in proofs}
  if len(shapes) != 1:
    raise ValueError(
      f'`certificates` must be one or more of the same images, got shapes {sorted(shapes)}.'
    )
  labels, radii = (np.stack(part) for part in zip(*proofs, strict=True))
  radii = np.where(labels == ABSTAIN, -1.0, radii)  # Loses against a label with radius 0.
  best = np.argmax(radii, axis=0)[None]
  label = np.take_along_axis(labels, best, axis=0)[0]
  radius = np.take_along_axis(radii, best, axis=0)[0]
  speaks = (labels != ABSTAIN) & ((radii > 0) | (radius == 0))
  contradicted = (speaks & (labels != label)).any(axis=0)
  if conflict == 'raise':
    _check(contradicted & (radius > 0), labels, radii)
  return certificate(np.where(contradicted, ABSTAIN, label), np.maximum(radius, 0.0))


def _check(contradicted, labels, radii):
  if not contradicted.any():
    return
  where = tuple(int(i[0]) for i in np.nonzero(contradicted))
  pick = (slice(None), *where)
  raise ValueError(
    f'`certificates` contradict each other at {contradicted.sum()} images, first at {where}: labels '
    f'{labels[pick].tolist()} with radii {radii[pick].tolist()}. They must be of one classifier '
    "(weights, preprocessing, noise); for sampled ones pass `conflict='abstain'`."
  )
