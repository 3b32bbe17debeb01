"""What does noise cost? Samplers against the least that any needs, and certificates an image.

    python benchmarks/smoothing.py

Each sampler draws around 200 images of 32x32x3, vmapped with one key an image as certification does; beside it
`jax.random.uniform` of the same size (the floor: random bits and one multiplication), and the same law drawn by PyTorch
where that is installed. Then the seconds that 10,000 radii of each distribution take on the host.
"""

import argparse

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import smoothing

SHAPE, BATCH, SIGMA = (32, 32, 3), 200, 0.5
D = int(np.prod(SHAPE))
LAWS = {
  'gaussian': lambda: smoothing.gaussian(sigma=SIGMA),
  'gaussian, grid': lambda: smoothing.gaussian(sigma=SIGMA, sampler='grid', shape=SHAPE),
  'generalized gaussian, q=3': lambda: smoothing.generalized_gaussian(q=3.0, sigma=SIGMA),
  'uniform': lambda: smoothing.uniform(sigma=SIGMA),
  'laplace': lambda: smoothing.laplace(sigma=SIGMA),
  'laplace, linf': lambda: smoothing.laplace(sigma=SIGMA, norm='linf', shape=SHAPE),
  'splitting': lambda: smoothing.splitting(sigma=SIGMA),
  'deterministic splitting': lambda: smoothing.deterministic_splitting(sigma=SIGMA, shape=SHAPE),
  'uniform ball': lambda: smoothing.uniform_ball(sigma=SIGMA, shape=SHAPE),
  'pareto, a=3': lambda: smoothing.pareto(a=3.0, sigma=SIGMA),
  'exp-inf, k=1': lambda: smoothing.exp_inf(k=1.0, sigma=SIGMA, shape=SHAPE, norm='linf'),
  'pow-inf': lambda: smoothing.pow_inf(a=D + 16.0, sigma=SIGMA, shape=SHAPE, norm='linf'),
  'exp1, k=2': lambda: smoothing.exp1(k=2.0, sigma=SIGMA, shape=SHAPE),
  'exp2, k=1': lambda: smoothing.exp2(k=1.0, sigma=SIGMA, shape=SHAPE),
  'pow2, k=2': lambda: smoothing.pow2(k=2.0, a=D / 2 + 16.0, sigma=SIGMA, shape=SHAPE),
  'expp, p=4': lambda: smoothing.expp(p=4.0, sigma=SIGMA),
  'discrete': lambda: smoothing.discrete(keep=0.8, shape=SHAPE),
}
TABLES = ('pow2, k=2', 'exp2, k=1')  # By the level-set method or its tables: no closed form.


def sampler(sample):
  """A blocking draw for BATCH images."""
  x = jnp.full((BATCH, *SHAPE), 128 / 255, jnp.float32)
  draw = jax.jit(
    lambda key, x: jax.vmap(lambda i, x: sample(jax.random.fold_in(key, i), x))(
      jnp.arange(BATCH), x
    )
  )
  return lambda: draw(jax.random.key(0), x).block_until_ready()


def in_torch():
  """The laws that PyTorch draws by itself, with its own generator; {} where it is missing."""
  try:
    import torch
  except ImportError:
    return {}
  x = torch.full((BATCH, *SHAPE), 128 / 255)
  lam, scale = np.sqrt(3) * SIGMA, SIGMA / np.sqrt(2)
  laplace = torch.distributions.Laplace(0.0, scale)
  return {
    'gaussian': lambda: x + SIGMA * torch.randn_like(x),
    'uniform': lambda: x + lam * (2 * torch.rand_like(x) - 1),
    'laplace': lambda: x + laplace.sample(x.shape),
  }


def radii_seconds(law):
  """Seconds of 10,000 radii, tables built, and of the first call, which builds them."""
  if not hasattr(law, 'radius'):
    return None, None
  p_a = np.linspace(0.501, 0.99993, 10_000)
  first = common.seconds(lambda: law.radius(p_a))
  return common.seconds(lambda: law.radius(p_a)), first


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  arguments = parser.parse_args()
  floor = sampler(lambda key, x: x + jax.random.uniform(key, x.shape))
  torch = in_torch()
  rows = []
  for name, make in LAWS.items():
    law = make()
    runs = {'ours': sampler(law.sample), 'floor': floor}
    if name in torch:
      runs['torch'] = torch[name]
    times = common.interleaved(runs, pairs=arguments.pairs)
    ratio, low, high = common.median_interval(times['ours'] / times['floor'])
    later, first = radii_seconds(law)
    rows.append(
      {
        'law': name,
        'M values/s': BATCH * D / float(np.median(times['ours'])) / 1e6,
        'to uniform': ratio,
        'low': low,
        'high': high,
        'torch / ours': float(np.median(times['torch'] / times['ours'])) if name in torch else None,
        '10,000 radii s': later,
        'first call s': first,
      }
    )
  common.print_table(rows)
  question = 'samplers against jax.random.uniform and PyTorch; seconds of 10,000 radii'
  common.write_card('smoothing', question, rows, pairs=arguments.pairs)


if __name__ == '__main__':
  main()
