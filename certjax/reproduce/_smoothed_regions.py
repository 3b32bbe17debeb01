"""A ragged classifier of the plane, what noise makes of it, and discs that no border crosses."""

import jax
import jax.numpy as jnp
import numpy as np

from certjax import certify, smoothing
from certjax.report import Curves, Line, Regions
from certjax.reproduce._nouns import ARITHMETIC, Recipe, Result, Row, at_every_scale
from certjax.reproduce._published import published

_SIGMA, _ALPHA = 0.2, 1e-3
_EXTENT = (-1.0, 1.0, -1.0, 1.0)
_POINTS = ((-0.6, 0.5), (-0.2, -0.6), (0.85, 0.1), (0.3, 0.7), (0.1, -0.1))


def ragged(x):
  """Logits of three regions with a wavy border, float[B, 2] -> float[B, 3]."""
  wave = jnp.sin(6 * x[:, 0]) * 0.4 + 0.3 * jnp.sin(17 * x[:, 1])
  return jnp.stack([x[:, 1] - wave, wave - x[:, 1], 1.4 * x[:, 0] - 1.0], axis=1)


def run(request, *, model_fn=ragged, side=80, num_votes=1000, num_samples=5000) -> Result:
  """Regions before and after smoothing, certified discs, and points inside with another label.

  Args:
    request: a `Request`; only its seed matters.
    model_fn: of the plane.
    side: cells of the grid along each axis.
    num_votes: samples of PREDICT at each cell.
    num_samples: samples of CERTIFY at each centre.
  """
  noise, grid = smoothing.gaussian(sigma=_SIGMA), _grid(side)
  key_votes, key_proof = jax.random.split(jax.random.key(request.seed))
  votes = np.asarray(certify.votes(key_votes, model_fn, noise, grid, num_samples=num_votes))
  known = certify.label_from_votes(votes, alpha=_ALPHA)
  centres = np.array(_POINTS, np.float32)
  proof = certify.sampled(
    key_proof, model_fn, noise, centres, num_samples=num_samples, alpha=_ALPHA
  )
  inside = np.linalg.norm(grid[:, None] - centres, axis=-1) <= proof.radius
  wrong = inside & (known[:, None] >= 0) & (known[:, None] != proof.label)
  checked = int((inside & (known[:, None] >= 0)).sum())
  row = Row(
    number='points inside certified discs with another label', ours=float(wrong.sum()),
    unit='points',
    setting=(
      f'{checked} points in {int((proof.label >= 0).sum())} discs, {num_votes} samples each, '
      f'sigma = {_SIGMA}, alpha = {_ALPHA}'
    ),
    dataset=ARITHMETIC, seed=request.seed, comparable=True,
    published=published('gaussian-discs', 'points inside'),
  )  # fmt: skip
  discs = np.column_stack([centres, proof.radius])
  picture = lambda labels: np.asarray(labels).reshape(side, side)
  panels = (
    Regions('base classifier', picture(jnp.argmax(model_fn(jnp.asarray(grid)), axis=1)), _EXTENT),
    Regions('smoothed, with certified discs', picture(votes.argmax(axis=1)), _EXTENT, discs),
    _probability_panel(),
  )
  note = 'Each disc holds with probability 0.999, and each label of a point inside as well.'
  return Result((row,), panels, (note,))


def _grid(side):
  """float32[side^2, 2]: middles of cells, row 0 at the bottom."""
  ends = (np.arange(side) + 0.5) / side * 2 - 1
  return np.stack(np.meshgrid(ends, ends), axis=-1).reshape(-1, 2).astype(np.float32)


def _probability_panel():
  p_a = np.linspace(0.5, 0.999, 200)
  radius = smoothing.gaussian(sigma=_SIGMA).radius(p_a)
  line = Line(f'sigma = {_SIGMA}', p_a, radius)
  return Curves('from probability to radius', 'p_a', 'certified L2 radius', (line,))


RECIPE = Recipe(
  name='smoothed-regions',
  source='Cohen et al. 2019, Figure 1',
  dataset=ARITHMETIC,
  shows='regions of a classifier of the plane before and after smoothing, with certified discs',
  scales=at_every_scale('seconds'),
  run=run,
)
