"""Wasserstein smoothing of Levine & Feizi 2020: how far mass may move.

A model for each sigma; the same votes under the paper's bound and the tight one, over both ground
distances. Digits have an average pixel of 1/64 of the mass where MNIST's strokes have about 1/150, and far
fewer edges: the same sigma is less noise there.
"""

from typing import NamedTuple

from certjax import certify, data, evaluate, records, report, smoothing
from certjax.report import Curves
from certjax.reproduce._certified import Sampling, certified, images_of, trained
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, Scale
from certjax.reproduce._published import numbers, published
from certjax.reproduce._shares import accuracy_line, median_row, outcome_rows

_ALPHA = 0.05
_FORMULA = {'sigma': 0.01, 'shape': (28, 28, 1), 'bound': 'levine'}
_FORMULA_SAMPLES = 10_000
_LAWS = (('l2', 'levine'), ('l2', 'tight'), ('l1', 'levine'), ('l1', 'tight'))
_NOTE = (
  'The published medians on MNIST could not be verified and are left out; the radii that the published formula gives for a '
  'number of votes are compared.'
)


class Plan(NamedTuple):
  """What a scale trains and certifies.

  Attributes:
    dataset: name of the data set.
    num_epochs: of the training.
    sigmas: a model for each.
    num_images: test images, evenly spaced.
    sampling: of the certificates.
    preset: of the training.
  """

  dataset: str
  num_epochs: int
  sigmas: tuple
  num_images: int
  sampling: Sampling
  preset: str = 'wasserstein-mnist-quick'


PLANS = {
  'quick': Plan('digits', 60, (0.005, 0.02, 0.05), 500, Sampling(100, 1_000, _ALPHA)),
  'reduced': Plan('mnist', 15, (0.005, 0.02), 500, Sampling(1_000, 10_000, _ALPHA)),
  'full': Plan(
    'mnist', 200, (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 10_000, Sampling(1_000, 10_000, _ALPHA),
    'wasserstein-mnist',
  ),
}  # fmt: skip


def run(request, *, plan=None) -> Result:
  """The formula at some counts; medians, accuracy and abstention for each sigma.

  Args:
    request: a `Request`, whose presets hold the plan's.
    plan: default that of the scale.
  """
  plan = plan or PLANS[request.scale]
  images, rows, lines = images_of(request, plan.dataset, plan.num_images), [*_formula()], []
  for sigma in plan.sigmas:
    where = f'sigma-{sigma:g}'
    law = smoothing.wasserstein(sigma=sigma, shape=data.dataset(plan.dataset).shape, bound='levine')
    model = trained(
      request, plan.preset, where, law, dataset=plan.dataset, num_epochs=plan.num_epochs, sigma=sigma,
      parameters={'bound': 'levine'}, save_every_epochs=plan.num_epochs,
    )  # fmt: skip
    run = certified(
      request, model, law, images, where, sampling=plan.sampling, method='wasserstein', sigma=sigma,
      bound='levine',
    )  # fmt: skip
    _, records_of_run = records.read(request.out / where)
    made, line = _rows(request, plan, sigma, run, records_of_run)
    rows += made
    lines.append(line)
  figure = Curves(plan.dataset, 'mass times pixels, l2', 'certified accuracy', tuple(lines))
  return Result(tuple(rows), (figure,), (_NOTE,))


def _formula():
  """The published formula at some counts, beside the library's."""
  for number in numbers('wasserstein-formula'):
    noise, votes = number.split(', ')
    votes = int(votes.removesuffix(' votes'))
    law = (
      smoothing.wasserstein(**_FORMULA, noise='pixels')
      if noise == 'pixels'
      else smoothing.wasserstein(**_FORMULA, ground=noise)
    )
    p_a = certify.clopper_pearson(votes, _FORMULA_SAMPLES, alpha=_ALPHA)
    yield Row(
      f'certified radius, {number} of {_FORMULA_SAMPLES:,}', float(law.radius(p_a)), 'mass',
      f'sigma = {_FORMULA["sigma"]:g}, alpha = {_ALPHA:g}', ARITHMETIC,
      published('wasserstein-formula', number), comparable=True,
    )  # fmt: skip


def _rows(request, plan, sigma, run, lines):
  """(rows of one sigma, its curve under the paper's law)."""
  sampling, rows, curve = plan.sampling, [], None
  shared = {
    'setting': (
      f'sigma = {sigma:g}, wasserstein-cnn, {plan.num_epochs} epochs, {len(run.index)} test images, '
      f'{sampling}'
    ),
    'dataset': plan.dataset, 'seed': request.seed,
  }  # fmt: skip
  for ground, bound in _LAWS:
    law = smoothing.wasserstein(
      sigma=sigma, shape=data.dataset(plan.dataset).shape, ground=ground, bound=bound
    )
    proof = evaluate.recertified(lines, law, num_samples=sampling.num_samples, alpha=sampling.alpha)
    this = report.Run(f'sigma {sigma:g}', run.index, run.labels, proof)
    name = f'ground distance {ground}, bound {bound}, sigma {sigma:g}'
    rows.append(median_row(this, 'mass', number=f'median certified radius, {name}', **shared))
    ceiling = certify.clopper_pearson(
      sampling.num_samples, sampling.num_samples, alpha=sampling.alpha
    )
    rows.append(Row(
      f'largest radius that the votes can certify, {name}', float(law.radius(ceiling)), 'mass',
      f'sigma = {sigma:g}, {sampling}', ARITHMETIC,
    ))  # fmt: skip
    curve = curve or accuracy_line(this.name, this)
  described = lambda what: {'number': f'{what}, sigma {sigma:g}', **shared}
  return rows + outcome_rows(lines, sampling.alpha, described), curve


RECIPE = Recipe(
  name='wasserstein-mnist',
  source='Levine & Feizi 2020 (Wasserstein smoothing)',
  dataset='mnist',
  shows='how far the mass of an image may move, under the published bound and the tight one',
  scales={
    'quick': Scale('a minute on 2 cores: 3 models on digits', ('digits',)),
    'reduced': Scale('half an hour on 2 cores: 2 models on MNIST', ('mnist',)),
    'full': Scale('an accelerator, hours (not timed): 7 models on MNIST, 200 epochs each, all test images', ('mnist',)),
  },
  run=run,
)  # fmt: skip
