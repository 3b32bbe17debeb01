"""Certificates of a smoothed classifier under every attack in L2: inside the radius none may turn a label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, certify, data, smoothing, threats, train

pytestmark = pytest.mark.usefixtures('many_programs')

SIGMA, IMAGES, ALPHA, EPS = 0.25, 40, 1e-3, 0.25
ATTACKS = {
  'momentum pgd': lambda threat: attacks.momentum_pgd(
    threat, step_size=threat.eps / 4, num_steps=10
  ),
  'apgd': lambda threat: attacks.apgd(threat, num_steps=10),
  'fab-t': lambda threat: attacks.fab(threat, num_steps=10, targets=2),
  'square': lambda threat: attacks.square(threat, num_queries=60),
  'deepfool': lambda threat: attacks.deepfool(threat, num_steps=5),
  'ddn': lambda threat: attacks.ddn(threat, num_steps=10),
  'fmn': lambda threat: attacks.fmn(threat, num_steps=10),
  'carlini-wagner': lambda threat: attacks.carlini_wagner(
    threat, num_steps=10, binary_search_steps=3, learning_rate=0.1, initial_const=1.0
  ),
}


@pytest.fixture(scope='module')
def certified(trained, data_dir):
  """(model_fn, surrogate, x, label, radius, index) of test digits; -1 where nothing is certified."""
  model_fn = train.load_run(trained).model_fn
  index = data.subset(500, evenly=IMAGES)
  images = data.load('digits', 'test', data_dir=data_dir, indices=index)
  x, noise = jnp.asarray(data.to_float(images.images)), smoothing.gaussian(sigma=SIGMA)
  proof = certify.sampled(
    jax.random.key(0), model_fn, noise, x, index=index, num_samples=1000, alpha=ALPHA
  )
  surrogate = attacks.expected(jax.random.key(1), model_fn, noise, num_noises=8)
  return model_fn, surrogate, x, proof, index


@pytest.mark.parametrize('name', list(ATTACKS))
def test_no_attack_turns_a_certified_label(certified, name):
  """A false alarm needs a wrong certificate or a wrong prediction, 1e-3 each: < 0.1 for all; the key is fixed."""
  model_fn, surrogate, x, proof, index = certified
  inside = proof.radius >= EPS
  assert inside.sum() > IMAGES / 2
  # The surrogate's own label where nothing is certified: there every answer is allowed.
  y = jnp.asarray(np.where(proof.label < 0, 0, proof.label), jnp.int32)

  @jax.jit
  def run(eps):
    return ATTACKS[name](threats.l2(eps))(jax.random.key(2), surrogate, x, y)

  turned = {}
  for factor in (0.999, 6.0):  # One program: the size is an argument.
    x_adv = np.asarray(run(jnp.float32(factor * EPS)))
    moved = np.linalg.norm((x_adv - np.asarray(x)).reshape(IMAGES, -1).astype(np.float64), axis=1)
    assert moved.max() <= factor * EPS * (1 + 1e-5)
    answer = certify.predict(
      jax.random.key(3), model_fn, smoothing.gaussian(sigma=SIGMA), x_adv, index=index,
      num_samples=500, alpha=ALPHA,
    )  # fmt: skip
    turned[factor] = np.sum(inside & (answer >= 0) & (answer != proof.label))
  assert turned[0.999] == 0, 'a certificate is contradicted'
  assert turned[6.0] > 0, 'an attack that never succeeds proves nothing'
