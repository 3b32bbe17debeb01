"""What BUILD.md says of floating point: grid noise from end to end, float noise that gives an image
away, bounds against fifty digits in the corners, printed radii below the stored ones."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from certjax import certify, configs, records, report, smoothing
from certjax.smoothing import _grid

KEY = jax.random.key(0)
SIGMA = 0.25


def assert_on_the_grid(x):
  """Integers / 255 bit for bit, none beyond the clip, and not images without noise."""
  levels = np.rint(255 * np.asarray(x, np.float64))
  np.testing.assert_array_equal(x, levels.astype(np.float32) / np.float32(255))
  k = _grid.reach(SIGMA)
  assert levels.min() >= -255 * k and levels.max() <= 255 * (k + 1)
  assert (levels < 0).any() and (levels > 255).any()


def test_the_model_sees_integers_over_255_and_images_are_rounded_first():
  seen = []

  def bright(x):
    seen.append(x.copy())
    total = x.reshape(len(x), -1).astype(np.float64).sum(axis=1)
    return np.stack([total, 6.0 - total], axis=1)

  levels = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 1))
  x = levels.astype(np.float32) / np.float32(255)
  noise = smoothing.gaussian(sigma=SIGMA, sampler='grid', shape=(2, 3, 1))
  prove = lambda x: certify.sampled(
    KEY, certify.outside(bright, 2), noise, x, num_samples=500, chunk=100
  )
  proof = prove(x)
  assert_on_the_grid(np.concatenate(seen))
  assert (proof.radius > 0).any()
  for ours, nearby in zip(proof, prove(x - np.float32(0.4 / 255)), strict=True):
    np.testing.assert_array_equal(ours, nearby)


MODEL = """
import numpy as np

seen = []

def classify(x):
  seen.append(x.copy())
  return x.reshape(len(x), 64)[:, 20:30]
"""


def test_the_command_line_draws_integers_and_pays_for_their_bits(
  command, data_dir, tmp_path, monkeypatch
):
  (tmp_path / 'seen_by_a_model.py').write_text(MODEL)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  done = command(
    'certify', '--model', 'seen_by_a_model:classify', '--outside-jax', '--dataset', 'digits',
    '--data-dir', data_dir, '--method', 'gaussian-grid', '--sigma', SIGMA, '--evenly', 8,
    '--num-samples', 400, '--chunk', 100, '--out', tmp_path / 'run',
  )  # fmt: skip
  assert done.code == 0, done.err
  noisy = [x for x in sys.modules.pop('seen_by_a_model').seen if len(x) == 100]
  assert_on_the_grid(np.concatenate(noisy))
  header, lines = records.read(tmp_path / 'run')
  assert header['sampler'] == 'certjax.smoothing._grid._sample'
  exact = smoothing.gaussian(sigma=SIGMA)
  proved = [line for line in lines if line['radius'] > 0]
  assert proved
  for line in proved:
    p_a = certify.clopper_pearson(line['count'], 400, alpha=header['alpha'])
    assert SIGMA * 1e-3 < line['radius'] < exact.radius(p_a)


def test_float_noise_gives_its_image_away():
  """Uniform float32 noise: draws around 0 are multiples of 2^-23, draws around 1/255 are not. A model
  that looks at those bits answers differently at 1/255, which the certificate of 0 rules out."""

  def model_fn(x):
    multiple = x[:, 0] * 2**23 == jnp.round(x[:, 0] * 2**23)
    return jax.nn.one_hot(jnp.where(multiple, 0, 1), 2, dtype=jnp.float32)

  x = np.array([[0.0], [1 / 255]], np.float32)
  proof = certify.sampled(KEY, model_fn, smoothing.uniform(lam=0.5), x, num_samples=1000, chunk=100)
  assert proof.label.tolist() == [0, 1] and (proof.radius > 100 / 255).all()


def test_what_float_normals_leave_out():
  """Their range leaves out a mass of 1.2e-7 a coordinate: 3.7e-4 of CIFAR's noise, 1.8e-2 of ImageNet's."""
  ends = np.array([2**-24 - 1, 1 - 3 * 2**-24], np.float32)  # Of its uniform numbers.
  low, high = np.sqrt(2) * np.asarray(jax.lax.erf_inv(ends), np.float64)
  mass = special.ndtr(low) + special.ndtr(-high)
  assert 1.1e-7 < mass < 1.3e-7
  cifar, imagenet = -np.expm1(np.log1p(-mass) * np.array([32 * 32 * 3, 224 * 224 * 3]))
  assert cifar == pytest.approx(3.7e-4, rel=0.05) and imagenet == pytest.approx(1.8e-2, rel=0.05)


def test_what_grid_noise_costs():
  """The total variation of a whole image that radii pay for."""
  for sigma in (0.12, 0.25, 0.5, 1.0):
    assert _grid.variation(sigma) < 2**-50
  assert 224 * 224 * 3 * _grid.variation(1.0) < 2e-11


def upper_tail(k, n, p):
  """Pr[Binomial(n, p) >= k] = I_p(k, n - k + 1) by its continued fraction, p below the mean."""
  mpmath = pytest.importorskip('mpmath')
  a, b, x = mpmath.mpf(k), mpmath.mpf(n - k + 1), mpmath.mpf(p)
  lead = a * mpmath.log(x) + b * mpmath.log(1 - x) - mpmath.log(a)
  lead = mpmath.exp(lead + mpmath.loggamma(a + b) - mpmath.loggamma(a) - mpmath.loggamma(b))
  d = 1 / (1 - (a + b) * x / (a + 1))
  c, value, m, change = mpmath.mpf(1), d, 0, mpmath.mpf(0)
  while abs(change - 1) > mpmath.mpf(10) ** -30:  # Lentz's recurrence, two steps a turn.
    m, change = m + 1, mpmath.mpf(1)
    even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    for step in (even, odd):
      d, c = 1 / (1 + step * d), 1 + step / c
      change *= d * c
    value *= change
  return lead * value


@pytest.mark.parametrize('trials', [10**6, 10**7, 10**8])
@pytest.mark.parametrize('alpha', [1e-3, 1e-12, 1e-60])
def test_bounds_in_the_corners(trials, alpha):
  """The tail at a bound stays below alpha; at the lower one it is within 2e-7 of it."""
  mpmath = pytest.importorskip('mpmath')
  half = trials // 2
  for k in (1, 2, half, half + 1000, trials - 5, trials - 1, trials):
    lower = float(certify.clopper_pearson(k, trials, alpha=alpha))
    upper = float(certify.clopper_pearson_upper(trials - k, trials, alpha=alpha))
    with mpmath.workdps(50):
      assert 0 < 1 - upper_tail(k, trials, lower) / mpmath.mpf(alpha) < 2e-7
      assert upper == 1 or upper_tail(k, trials, 1 - mpmath.mpf(upper)) <= alpha


@pytest.mark.parametrize('trials', [10**5, 10**6, 10**8])
@pytest.mark.parametrize('alpha', [1e-3, 1e-12])
def test_the_largest_radius_against_its_closed_form(trials, alpha):
  """sigma Phi^-1(alpha^(1/n)) where all samples agree: below it, by less than 1e-8 sigma."""
  mpmath = pytest.importorskip('mpmath')
  ours = certify.largest_radius(smoothing.gaussian(sigma=SIGMA), trials, alpha)
  with mpmath.workdps(50):
    p_a = mpmath.mpf(alpha) ** (mpmath.mpf(1) / trials)
    truth = SIGMA * mpmath.sqrt(2) * mpmath.erfinv(2 * p_a - 1)
    assert 0 < truth - mpmath.mpf(ours) < 1e-8 * SIGMA


SAMPLED = [name for name, row in configs.METHODS.items() if row.quantifier != 'exact']


@pytest.mark.parametrize('name', SAMPLED)
def test_no_law_proves_anything_from_nan(name):
  noise = configs.smoothing_of(name, SIGMA, None, shape=(6, 6, 1))
  assert noise.radius(np.float64('nan')) == 0
  assert noise.radius(np.array([0.999999, np.nan])).tolist()[1] == 0


@pytest.mark.parametrize('radius', [np.nextafter(0.5, 0), 0.99999999, 1 / 3, 0.1 + 0.2, 1e-7])
def test_what_is_printed_stays_below_what_is_stored(radius, tmp_path):
  index, label = np.arange(1), np.array([3])
  run = report.Run('one', index, label, certify.certificate(label, [radius]))
  cells = report.markdown(report.table([run])).splitlines()[2].split('|')
  assert any(0 <= radius - float(cell) < 1e-4 for cell in cells[3:-2] if '.' in cell)
  assert float(cells[-3]) <= radius  # The average certified radius of one image.
  report.write_tsv(tmp_path / 'log.tsv', run)
  assert 0.98 * radius < report.read_tsv(tmp_path / 'log.tsv').certificate.radius[0] <= radius
