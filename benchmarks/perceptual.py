"""What do perceptual attacks and a step of perceptual adversarial training cost, beside the passes that they need?

    python benchmarks/perceptual.py

The CNN of MNIST with random weights, self-bounded (phi is its own), 100 images, eps = 0.1. The floor of an attack is as many
passes as it needs, each one compiled call: "look" is phi and logits (F), "gradient" that with the gradient in
the image (F + B). Fast-LPA needs N gradients and N looks; a search of LPA two looks more, and a gradient for each
step of Newton's projection, as many as a counting run takes; an iteration of conjugate
gradients in PPGD is one product with J and one with its transpose, measured as the difference of 15 and 5 iterations
a step, beside one call that makes phi and both products (F + JVP + VJP; its F is more than an iteration needs). A training step (batch of 128, Adam): PAT with Fast-LPA of 10 steps against adversarial training with PGD of 10 steps
(floor by passes: (22 F + 11 B) / (12 F + 11 B)). Both sides in turn, in one process; the median of the ratios with its 95%
interval.
"""

import argparse

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from certjax import attacks, models, parallel, train
from certjax.attacks._ppgd import jacobian
from certjax.distances import unit_features

EPS, IMAGES, STEPS, SEARCHES = 0.1, 100, 10, 2
FEW, MANY = 5, 15  # Iterations of conjugate gradients.
SHAPE, BATCH = (28, 28, 1), 128


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  pairs = parser.parse_args().pairs
  module = models.build('mnist-cnn', num_classes=10)
  x = jax.random.uniform(jax.random.key(0), (IMAGES, *SHAPE))
  variables = jax.jit(module.init)(jax.random.key(1), x)
  seen = models.bind_features(module, variables)
  y = jnp.argmax(seen(x)[1], axis=1)
  rows = [*of_attacks(seen, x, y, pairs), of_training(module, pairs)]
  table = common.markdown([{key: row[key] for key in list(row)[:4]} for row in rows])
  common.write_card('perceptual', 'Perceptual attacks beside their passes', rows, table=table)
  print(table)


def of_attacks(seen, x, y, pairs):
  """A row for Fast-LPA, LPA and an iteration of conjugate gradients."""

  def compiled(attack):
    run = jax.jit(lambda key, seen, x, y: attack(key, seen, x, y))
    return lambda: jax.block_until_ready(run(jax.random.key(2), seen, x, y))

  look, gradient, push_pull = passes(seen, x, y)
  fast = {
    'attack': compiled(attacks.fast_lpa(eps=EPS, num_steps=STEPS, projection='none')),
    'floor': lambda: (repeat(gradient, STEPS), repeat(look, STEPS + 1)),
  }
  yield ratio('Fast-LPA-10', common.interleaved(fast, pairs=pairs))
  lpa = attacks.lpa(eps=EPS, num_steps=STEPS, search_steps=SEARCHES)
  looks = SEARCHES * (STEPS + 2) + 1
  gradients = looks_taken(lpa, seen, x, y) - looks
  lpa = {
    'attack': compiled(lpa),
    'floor': lambda: (repeat(gradient, gradients), repeat(look, looks)),
  }
  name = f'LPA 2 x 10, with {gradients - SEARCHES * STEPS} steps of projection'
  yield ratio(name, common.interleaved(lpa, pairs=pairs))
  ppgd = {
    'many': compiled(attacks.ppgd(eps=EPS, num_steps=STEPS, cg_steps=MANY)),
    'few': compiled(attacks.ppgd(eps=EPS, num_steps=STEPS, cg_steps=FEW)),
    'floor': lambda: repeat(push_pull, STEPS * (MANY - FEW)),
  }
  times = common.interleaved(ppgd, pairs=pairs)
  one = {'attack': times['many'] - times['few'], 'floor': times['floor']}
  yield ratio('an iteration of conjugate gradients', one, calls=STEPS * (MANY - FEW))


def looks_taken(attack, seen, x, y):
  """Forward passes of a run, those within gradients among them."""
  taken = []

  def watched(x):
    jax.debug.callback(lambda: taken.append(1))
    return seen(x)

  jax.block_until_ready(
    jax.jit(lambda key, x, y: attack(key, watched, x, y))(jax.random.key(2), x, y)
  )
  jax.effects_barrier()
  return len(taken)


def repeat(run, number):
  for _ in range(number):
    run()


def passes(seen, x, y):
  """Compiled: phi and logits; with the gradient in x; J v and then J^T J v."""
  phi = lambda seen, x: unit_features(seen(x)[0])
  origin = jax.jit(phi)(seen, x)

  def lagrangian(x, seen):
    activations, logits = seen(x)
    distance = jnp.sqrt(jnp.sum((unit_features(activations) - origin) ** 2, axis=1) + 1e-6)
    return jnp.sum(distance - jax.vmap(attacks.margin)(logits, y))

  def both(seen, x, v):
    _, push, pull = jacobian(lambda x: phi(seen, x), x)
    return pull(push(v))

  look, slope, product = (
    jax.jit(lambda seen, x: seen(x)),
    jax.jit(jax.grad(lagrangian)),
    jax.jit(both),
  )
  block = jax.block_until_ready
  return (
    lambda: block(look(seen, x)),
    lambda: block(slope(x, seen)),
    lambda: block(product(seen, x, x)),
  )


def of_training(module, pairs):
  """A step of PAT against a step of adversarial training."""
  mesh = parallel.data_mesh(jax.devices()[:1])
  tx = optax.adam(1e-3)
  rng = np.random.default_rng(0)
  batch = {
    'x': rng.uniform(0, 1, (BATCH, *SHAPE)).astype(np.float32),
    'y': rng.integers(0, 10, BATCH).astype(np.int32),
    'index': np.arange(BATCH, dtype=np.int32),
  }
  specs = (parallel.REPLICATED, parallel.REPLICATED, parallel.SHARDED)

  def step(objective, **parameters):
    made = train.objective(objective, None, sigma=None, num_steps=STEPS, **parameters)
    step = train.make_step(module, tx, **made)
    run = parallel.pmap(step, mesh, specs, (parallel.REPLICATED, parallel.REPLICATED))
    state = train.init_state(jax.random.key(0), module, tx, SHAPE)
    return lambda: jax.block_until_ready(run(state, jax.random.key(1), batch))

  times = common.interleaved(
    {'attack': step('pat', eps=EPS), 'floor': step('adversarial', eps=0.1)}, pairs=pairs
  )
  return ratio('training: PAT-10 over adversarial PGD-10', times)


def ratio(name, times, calls=1):
  middle, low, high = common.median_interval(times['attack'] / times['floor'])
  return {
    'what': name,
    'ours, ms': 1000 * float(np.median(times['attack'])) / calls,
    'floor, ms': 1000 * float(np.median(times['floor'])) / calls,
    'ours / floor': f'{middle:.2f} ({low:.2f} to {high:.2f})',
    'ratio': [middle, low, high],
  }


if __name__ == '__main__':
  main()
