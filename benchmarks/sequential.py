"""How many samples does a sequential test need to certify a radius, against a fixed 100,000?

    python benchmarks/sequential.py [--logs DIR] [--repetitions 20]

The published logs of Cohen et al. (sigma 0.5, 500 images each) tell each image's probability of its
top class, p = Phi(radius / sigma), to three digits of the radius. Abstentions are left out: radius
0 tells no p. Against each p, taken as true, the tests of "p >= Phi(r / sigma)" run by simulation
with a fixed seed: samples an image, images certified, images undecided at the end (means over the
repetitions). The samples that select the class come on top, in their own column. All tests end at
125,000 samples but the fixed one (100,000) and Horvath's rounds (136,000, as published).
"""

import argparse
import pathlib

import common
import numpy as np
from scipy import special

from certjax import certify, report

ALPHA, SIGMA, SEED = 1e-3, 0.5, 0
FIXED = 100_000
LOGS = pathlib.Path(__file__).parents[2] / 'shared/data/logs/cohen_logs'
CASES = (  # Data set, log, radii.
  ('CIFAR-10', 'data/certify/cifar10/resnet110/noise_0.50/test/sigma_0.50', (0.25, 0.5, 1.0)),
  ('ImageNet', 'data/certify/imagenet/resnet50/noise_0.50/test/sigma_0.50', (0.5, 1.0, 1.5)),
)
METHODS = {  # method -> (samples at the last look, beta, samples that select the class).
  'fixed': (FIXED, None, 100),
  'horvath': (136_000, 1e-4, 300),  # A selection of 100 for each round that is reached.
  'union-bound': (125_000, ALPHA, 100),
  'betting': (125_000, ALPHA, 100),
  'group-sequential': (125_000, ALPHA, 100),
}


def simulate(rng, boundary, p):
  """(accepted, rejected, samples) of one run for each p."""
  accepted, rejected = np.zeros(p.shape, bool), np.zeros(p.shape, bool)
  samples, counts = np.zeros(p.shape, np.int64), np.zeros(p.shape, np.int64)
  drawn = 0
  for look, start, accept, reject in zip(*boundary, strict=True):
    unsure = ~(accepted | rejected)
    counts = np.where(start > 0, 0, counts) + rng.binomial(look - drawn, p)
    accepted |= unsure & (counts >= accept)
    rejected |= unsure & (counts <= reject)
    samples, drawn = np.where(unsure, look, samples), look
  return accepted, rejected, samples


def rows_of(name, p, logged, radius, repetitions):
  """One row a method."""
  p0 = np.nextafter(special.ndtr(radius / SIGMA) * (1 + 1e-15), 1)
  rows = []
  for method, (most, beta, selection) in METHODS.items():
    boundary = certify.boundary(method, p0, alpha=ALPHA, beta=beta, max_samples=most)
    rng = np.random.default_rng(SEED)
    accepted, rejected, samples = simulate(rng, boundary, np.tile(p, (repetitions, 1)))
    mean = float(samples.mean())
    rows.append(
      {
        'data': name,
        'r': radius,
        'p0': round(float(p0), 4),
        'method': method,
        'mean samples': round(mean),
        'median': float(np.median(samples)),
        'fixed / mean': FIXED / mean,
        'certified': float(accepted.sum(axis=1).mean()),
        'undecided': float((~accepted & ~rejected).sum(axis=1).mean()) if most != FIXED else None,
        'selection, at most': selection,
        'images': len(p),
        'logged': int(logged),
      }
    )
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--logs', type=pathlib.Path, default=LOGS)
  parser.add_argument('--repetitions', type=int, default=20)
  arguments = parser.parse_args()
  rows = []
  for name, log, radii in CASES:
    certificate = report.load(arguments.logs / log).certificate
    proved = certificate.radius[certificate.label != certify.ABSTAIN]
    p = special.ndtr(proved / SIGMA)
    for radius in radii:
      rows += rows_of(name, p, np.sum(proved >= radius), radius, arguments.repetitions)
  common.print_table(rows)
  question = 'samples an image of sequential tests of a radius, on published radii'
  settings = {'alpha': ALPHA, 'seed': SEED, 'repetitions': arguments.repetitions}
  common.write_card('sequential', question, rows, **settings)


if __name__ == '__main__':
  main()
