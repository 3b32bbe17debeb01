"""Records of proofs without noise: images one at a time, so that none depends on a batch or a shard."""

import time

from certjax import data


def records_of(prove, images, *, slack=None, stop=lambda: False):
  """Certifies images and yields their records in order.

  Args:
    prove: image -> (slack or None -> `certify.Certificate` of that image).
    images: `data.Images` or `data.Stream`.
    slack: None, or a difference of logits: a second certificate, that holds for other programs too.
    stop: asked before every image; once it says True, the rest is left.

  Yields:
    (record, seconds): index, label, predict and radius (float64, rounded down); with `slack` also
    slack_predict and slack_radius.
  """
  for image, label, index in data.rows(images):
    if stop():
      return
    begun = time.perf_counter()
    of_slack = prove(data.to_float(image))
    proof, portable = of_slack(None), {}
    if slack is not None:
      other = of_slack(slack)
      portable = {'slack_predict': int(other.label), 'slack_radius': float(other.radius)}
    record = {'index': int(index), 'label': int(label), **portable}
    record |= {'predict': int(proof.label), 'radius': float(proof.radius)}
    yield record, time.perf_counter() - begun
