"""Every method of the table, from votes to an attack: its certificates survive, PREDICT answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from certjax import attacks, certify, configs, evaluate, models, testing, threats

SHAPE = (4, 4, 1)
W = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
# An L2 ball of this times the certified radius lies inside the certified ball of the norm.
INSIDE = {'l2': 1.0, 'linf': 1.0, 'l1': 1 / 4}


def model_fn(x):
  return (x.reshape(len(x), 16) - 0.5) @ W.astype(x.dtype)


def first_channel(x):
  """`model_fn` of samples that may have more channels than the images."""
  return model_fn(x[..., :1])


class Linear(nn.Module):
  """`model_fn` as a network that states its constant, for the method without noise."""

  def __call__(self, x, train=False):
    return model_fn(x)

  def lipschitz(self, variables):
    return float(np.linalg.norm(np.float64(W), 2) * (1 + 1e-12))


class Local(nn.Module):
  """Every pixel says something for each class, for the method that sums local features."""

  receptive_field: int = 1
  stride: int = 1

  def local_logits(self, x):
    return jnp.concatenate([x, 0.5 * x + 0.2, 0.1 * x + 0.4], axis=-1)

  def __call__(self, x, train=False):
    return self.local_logits(x).mean(axis=(1, 2))


PARAMETERS = {
  **dict.fromkeys(('ibp', 'crown-ibp', 'crown'), {'eps': 0.02}),
  'patch-ibp': {'side': 1}, 'sparse-ibp': {'pixels': 1}, 'patchguard': {'patch': 1},
  'random-bands': {'width': 1}, 'random-blocks': {'size': 2},
}  # fmt: skip


SMOOTH = models.MLP(3, hidden=(8,), activation='tanh')
NETWORKS = {  # What proofs without noise read.
  certify.Margin: models.bind(Linear(), {}),
  certify.Bounded: model_fn,
  certify.Curved: models.bind(SMOOTH, SMOOTH.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))),
  certify.Masked: models.bind(Local(), {}),
}


def classifier(noise):
  return NETWORKS.get(type(noise), model_fn)


def proved(noise, x, options):
  """The certificates of images, by whatever road the method takes."""
  if evaluate.is_clean(noise):
    network = evaluate.clean_network(classifier(noise), noise, shape=SHAPE)
    return evaluate.clean_certificate(network, x)
  if evaluate.is_exact(noise):
    return certify.enumerated(first_channel, noise, x, chunk=100)
  return certify.sampled(jax.random.key(0), first_channel, noise, x, **options)


def predicted(key, noise, x, options):
  """The labels of images, -1 where the method abstains."""
  if isinstance(noise, certify.Masked):  # Its label is not that of the largest mean.
    return proved(noise, x, options).label
  if evaluate.is_clean(noise):
    return np.argmax(classifier(noise)(np.asarray(x)), axis=1)
  return certify.predict(key, first_channel, noise, x, **options)


@pytest.mark.parametrize('name', configs.METHODS)
def test_certificates_survive_an_attack(name):
  """Eight images, each attacked at 99.9% of the largest L2 ball inside its certificate.

  A contradiction by chance has probability below 8 x 2e-3 if both bounds were as bad as allowed; the key is
  fixed.
  """
  noise = configs.smoothing_of(name, 0.2, PARAMETERS.get(name, {}), shape=SHAPE)
  x = np.random.default_rng(1).integers(0, 256, (8, *SHAPE)).astype(np.float32) / 255
  options = {'num_samples': 2000, 'alpha': 1e-3, 'chunk': 2000}
  proof = proved(noise, x, options)
  testing.check_certificate(proof, 3)
  kept = (proof.label >= 0) & (proof.radius > 0)
  label = predicted(jax.random.key(1), noise, x, options)
  agree = (label == proof.label) | (label < 0)
  assert agree[kept].all() and (label >= 0).any()
  if proof.radius.max() == 0 or noise.norm not in INSIDE:
    return  # No ball of pixel values lies inside: these threats have attacks of their own.
  assert kept.any()
  score = classifier(noise)
  if hasattr(noise, 'sample'):
    score = attacks.expected(jax.random.key(2), model_fn, noise, num_noises=16)

  def attack_one(key, x, y, eps):
    attack = attacks.pgd(threats.l2(eps), step_size=eps / 3, num_steps=8, loss=attacks.margin)
    return attack(key[None], score, x[None], y[None])[0]

  eps = jnp.asarray(0.999 * INSIDE[noise.norm] * proof.radius, jnp.float32)
  keys = jax.random.split(jax.random.key(3), 8)
  x_adv = jax.jit(jax.vmap(attack_one))(keys, x, jnp.asarray(proof.label, jnp.int32), eps)
  if hasattr(noise, 'num_views'):  # The adversary moves on the grid: round towards x.
    steps = np.trunc((np.asarray(x_adv, np.float64) - x) * 255 * 0.9999)
    x_adv = (np.round(x * 255) + steps).astype(np.float32) / 255
    after = certify.enumerated(model_fn, noise, x_adv, chunk=100).label
  else:
    after = predicted(jax.random.key(4), noise, x_adv, options)
  assert not np.any(kept & (after >= 0) & (after != proof.label))
