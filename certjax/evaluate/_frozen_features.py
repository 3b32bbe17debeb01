"""What a network that was trained without labels says of images: inputs of an ensemble's members.

Learned from all training images, so that one image more may change all of them: nothing is proved about
inserted or removed samples. But no label has touched them: one that is flipped reaches its own member
alone, as without features (SS-DPA, Levine & Feizi 2021).
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from certjax import data, models, records, train

_CHUNK = 500  # Images at once, in one fixed shape.


class FrozenFeatures(NamedTuple):
  """Features of a run.

  Attributes:
    representation: x[B, H, W, C] -> float32[B, D].
    facts: dict of JSON values, what they depend on: objective, model, and SHA-256 of the weights.
  """

  representation: Any
  facts: dict

  def __call__(self, images):
    """float32[N, D] of uint8[N, H, W, C]."""
    found = []
    for start in range(0, len(images), _CHUNK):
      part = data.to_float(images[start : start + _CHUNK])
      padded = np.concatenate([part, np.zeros((_CHUNK - len(part), *part.shape[1:]), part.dtype)])
      found.append(np.asarray(_features(self.representation, padded))[: len(part)])
    return np.concatenate(found)


def frozen_features(run, dataset: str) -> FrozenFeatures:
  """The features of a run that was trained without labels.

  Args:
    run: its directory.
    dataset: name of the data set that they are for.

  Returns:
    A `FrozenFeatures`.

  Raises:
    ValueError: if the run was trained with labels, or on another data set.

  Example:
    >>> frozen_features('nowhere', 'mnist')
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no training run (no config.json): run `certjax train` first.
  """
  config = train.read_config(run)
  objective = config.get('objective')
  if objective not in train.SELF_SUPERVISED:
    raise ValueError(
      f'`features`={run} was trained with labels (objective {objective}): a flipped one would reach every '
      f'member. Train without, by one of {", ".join(train.SELF_SUPERVISED)}: `certjax train rotnet-mnist`.'
    )
  if config['dataset'] != dataset:
    raise ValueError(f'`features`={run} are of {config["dataset"]}, and `dataset` is {dataset}.')
  trained = train.load_run(run)
  module = models.module_of(trained.model_fn)
  weights = jax.tree.map(np.asarray, trained.variables)
  facts = {
    'objective': objective, 'model': config['model'], 'weights_sha256': records.fingerprint(weights),
  }  # fmt: skip
  return FrozenFeatures(models.bind_representation(module, weights), facts)


@jax.jit
def _features(representation, x):
  return representation(x)
