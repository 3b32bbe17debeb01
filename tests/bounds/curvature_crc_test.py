"""The dual certificate of curvature: published case, true distances by search, unfinished searches."""

import numpy as np
import pytest
from scipy import optimize, special

from certjax import bounds, certify
from certjax.bounds import _curvature_crc

W1, B1 = np.array([[1, 2], [-1, 0.5], [0.3, -1]]), np.array([0.1, -0.2, 0.0])
W2, B2 = np.array([[1, -2, 0.5], [-0.5, 1, 1.5]]), np.array([0.3, -0.1])
X = np.array([[-0.6, 0.8]])
FUNCTIONS = {
  'softplus': (lambda t: np.logaddexp(0, t), special.expit),
  'sigmoid': (special.expit, lambda t: special.expit(t) * special.expit(-t)),
  'tanh': (np.tanh, lambda t: 1 - np.tanh(t) ** 2),
}


def random_network(seed, sizes, gain=1.0):
  rng = np.random.default_rng(seed)
  pairs = list(zip(sizes[1:], sizes[:-1], strict=True))
  weights = [gain * rng.normal(size=shape) / np.sqrt(shape[1]) for shape in pairs]
  return weights, [0.3 * rng.normal(size=shape[0]) for shape in pairs]


def logits(x, weights, biases, activation):
  """(f, its Jacobian) at one point, written apart from the code under test."""
  value, slope = FUNCTIONS[activation]
  jacobian = np.eye(len(x))
  for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
    before = weight @ x + bias
    x, jacobian = value(before), slope(before)[:, None] * (weight @ jacobian)
  return weights[-1] @ x + biases[-1], weights[-1] @ jacobian


def distance(x, y, j, *network):
  """To the nearest point where j reaches y, by SLSQP from many starts; no lower bound, an upper one."""
  gap = lambda z: (lambda f: f[y] - f[j])(logits(z, *network)[0])
  slope = lambda z: (lambda d: d[y] - d[j])(logits(z, *network)[1])
  rng, found = np.random.default_rng(0), np.inf
  for _ in range(4):
    end = optimize.minimize(
      lambda z: ((z - x) ** 2).sum() / 2, x + 0.5 * rng.normal(size=x.shape),
      jac=lambda z: z - x, method='SLSQP', options={'ftol': 1e-13, 'maxiter': 200},
      constraints={'type': 'eq', 'fun': gap, 'jac': slope},
    )  # fmt: skip
    if abs(gap(end.x)) < 1e-8:
      found = min(found, np.linalg.norm(end.x - x))
  return found


def test_the_published_case():
  """Reference case 23: the certificate is the distance itself, at eta = .1041065615."""
  proof = bounds.crc(X, [W1, W2], [B1, B2])
  assert proof.label.tolist() == [1]
  assert proof.radius[0] == pytest.approx(0.3800155962, abs=1e-8)
  assert proof.radius[0] <= distance(X[0], 1, 0, [W1, W2], [B1, B2], 'softplus')
  m = bounds.curvature(W1, W2)
  around = bounds.expansion(X, W1, B1, W2, B2, curvature=m)
  deep = around._replace(curvature=bounds.deep_curvature([W1, W2])[[1]])
  closed, deep = (float(certify.curvature_margin(*part).radius[0]) for part in (around, deep))
  first_order = around.gap[0, 0] / around.slope[0, 0]
  assert 0.1623309194 < deep < closed < proof.radius[0] < first_order
  network = _curvature_crc._network([W1, W2], [B1, B2], 'softplus')
  pairs = _curvature_crc._Pairs.of(network, X, np.array([1]), np.array([0]), m)
  eta, _ = _curvature_crc._search(pairs, 30, 60)
  assert eta[0] == pytest.approx(0.1041065615, abs=1e-6)


def test_closed_form_of_one_softplus():
  """f_0 - f_1 = softplus(a x) - 1 is convex: the distance is known, and proved, from every x."""
  a = 3.0
  x = np.array([[0.2], [0.5], [4.0], [30.0]])
  proof = bounds.crc(x, [[[a]], [[1.0], [0.0]]], [[0.0], [0.0, 1.0]])
  true = x[:, 0] - np.log(np.e - 1) / a
  np.testing.assert_allclose(proof.radius, true, rtol=1e-7)
  assert (proof.radius <= true).all()


@pytest.mark.parametrize('activation', FUNCTIONS)
@pytest.mark.parametrize(
  'sizes, gain', [((3, 6, 3), 1.0), ((3, 5, 4, 3), 1.5)], ids=['two', 'three']
)
def test_between_the_closed_form_and_the_distance(activation, sizes, gain):
  """Of all rivals; where it is the distance of a rival it is that to seven digits."""
  weights, biases = random_network(len(sizes), sizes, gain)
  x = np.random.default_rng(1).normal(size=(6, 3))
  network = _curvature_crc._network(weights, biases, activation)
  curvature = _curvature_crc._curvature_of(network)
  proof = bounds.crc(x, weights, biases, activation=activation, curvature=curvature)
  _, closed = _curvature_crc._closed_form(network, x, curvature)
  true = np.array([
    min(distance(p, y, j, weights, biases, activation) for j in range(3) if j != y)
    for p, y in zip(x, proof.label, strict=True)
  ])  # fmt: skip
  assert [np.argmax(logits(p, weights, biases, activation)[0]) for p in x] == proof.label.tolist()
  assert (proof.radius >= closed.min(axis=1)).all() and (proof.radius <= true + 1e-9).all()
  assert (proof.radius > 1.0001 * closed.min(axis=1)).any()
  if len(sizes) == 3:
    assert (proof.radius > (1 - 1e-6) * true).sum() >= 2


@pytest.mark.parametrize('counts', [(1, 1), (2, 1), (1, 4), (4, 3)], ids=str)
def test_an_unfinished_search_proves_less_but_never_more(counts):
  weights, biases = random_network(5, (4, 12, 4), 2.0)
  x = np.random.default_rng(2).normal(size=(40, 4))
  options = {'activation': 'tanh', 'curvature': bounds.curvature(*weights, activation='tanh')}
  full = bounds.crc(x, weights, biases, **options, num_multipliers=60, num_steps=300)
  short = bounds.crc(x, weights, biases, **options, num_multipliers=counts[0], num_steps=counts[1])
  assert (short.radius <= full.radius * (1 + 1e-7)).all()
  assert (short.radius < full.radius * (1 - 1e-3)).any()
  default = bounds.crc(x, weights, biases, **options)
  assert (default.radius >= 0.999 * full.radius).all()


def test_any_multiplier_and_any_point_are_sound():
  """What is proved from 20,000 random (eta, x), far from the optimum, stays below the distance."""
  rng = np.random.default_rng(3)
  count, m = 20_000, bounds.curvature(W1, W2)
  network = _curvature_crc._network([W1, W2], [B1, B2], 'softplus')
  start = np.repeat(X, count, axis=0)
  y, j = np.ones(count, int), np.zeros(count, int)
  pairs = _curvature_crc._Pairs.of(network, start, y, j, m)
  eta = rng.uniform(-0.2, 1.2, count) / m[1, 0]
  x = start + rng.normal(size=start.shape) * rng.exponential(0.3, (count, 1))
  radius = _curvature_crc._proved(pairs, eta, x)
  assert (radius <= 0.3800155963).all() and radius.max() > 0.36
  assert (radius[(eta < 0) | (eta * m[1, 0] >= 1)] == 0).all()


def test_the_nearest_rival_need_not_be_the_runner_up():
  """Class 1 is next in value and far away, class 2 is last and near."""
  last = np.array([[4.0, 0.0], [3.9, 0.0], [0.0, 4.0]])
  weights, biases = [np.array([[0.5, 0], [0, 8.0]]), last], [np.zeros(2), np.array([0, 0.0, -1])]
  x = np.array([[0.5, 0.0]])
  f = logits(x[0], weights, biases, 'softplus')[0]
  assert f.argsort().tolist() == [2, 1, 0]
  proof = bounds.crc(x, weights, biases)
  each = [distance(x[0], 0, j, weights, biases, 'softplus') for j in (1, 2)]
  assert each[1] < 0.5 * each[0]
  assert proof.radius[0] == pytest.approx(each[1], rel=1e-6)


@pytest.mark.parametrize('activation', FUNCTIONS)
def test_the_errors_of_float64_are_paid(activation):
  """g and its gradient against 60 digits, where the sums of both layers cancel."""
  import mpmath

  rng = np.random.default_rng(4)
  weights, biases = random_network(4, (3, 5, 4, 2))
  weights[0] = 1e6 * weights[0]
  biases[0] = rng.normal(size=5) - weights[0] @ np.ones(3)
  weights[2], x = 1e6 * weights[2], 1 + 1e-7 * rng.normal(size=(1, 3))
  network = _curvature_crc._network(weights, biases, activation)
  pairs = _curvature_crc._Pairs.of(network, x, np.array([0]), np.array([1]), np.zeros((2, 2)))
  value, wrong, slope, tilt = _curvature_crc._enclosed(pairs, x)
  with mpmath.workdps(60):
    functions = {
      'softplus': (lambda t: mpmath.log1p(mpmath.exp(t)), lambda t: 1 / (1 + mpmath.exp(-t))),
      'sigmoid': (
        lambda t: 1 / (1 + mpmath.exp(-t)),
        lambda t: mpmath.exp(-t) / (1 + mpmath.exp(-t)) ** 2,
      ),
      'tanh': (mpmath.tanh, lambda t: mpmath.sech(t) ** 2),
    }
    a, jacobian = mpmath.matrix(x[0].tolist()), mpmath.eye(3)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
      matrix = mpmath.matrix(weight.tolist())
      before = matrix * a + mpmath.matrix(bias.tolist())
      a = before.apply(functions[activation][0])
      jacobian = mpmath.diag(list(before.apply(functions[activation][1]))) * matrix * jacobian
    matrix = mpmath.matrix(weights[-1].tolist())
    row = matrix[0, :] - matrix[1, :]
    exact = (row * a)[0] + mpmath.mpf(biases[-1][0]) - mpmath.mpf(biases[-1][1])
    off = abs(exact - mpmath.mpf(float(value[0])))
    gradient = row * jacobian
    away = mpmath.norm(gradient - mpmath.matrix([slope[0].tolist()]))
  assert 0 < off <= wrong[0] and 0 < away <= tilt[0]
  assert wrong[0] < 1e-5 * np.abs(weights[2]).max()  # No vacuous bound.


def test_images_of_any_shape_and_nan():
  weights, biases = random_network(6, (4, 5, 3))
  x = np.random.default_rng(5).normal(size=(5, 4))
  proof = bounds.crc(x, weights, biases)
  again = bounds.crc(x.reshape(5, 2, 2, 1), weights, biases, batch=2)
  np.testing.assert_allclose(proof.radius, again.radius, rtol=1e-9)
  x[2, 1] = np.nan
  broken = bounds.crc(x, weights, biases)
  assert broken.label[2] == -1 and broken.radius[2] == 0
  np.testing.assert_allclose(np.delete(broken.radius, 2), np.delete(proof.radius, 2), rtol=1e-9)


@pytest.mark.parametrize(
  'change, said',
  [
    ({'biases': [B1]}, '`biases` must have one vector for each'),
    ({'biases': [B1, B2 * np.nan]}, '`biases` must be finite'),
    ({'weights': [W1 * np.inf, W2]}, '`weights` must be finite'),
    ({'activation': 'relu'}, '`activation` must be one of softplus'),
    ({'x': np.zeros((1, 3))}, '`x` must have D=2 pixels an image, got 3'),
    ({'curvature': -np.ones((2, 2))}, '`curvature` must be float'),
    ({'curvature': np.full((2, 2), np.nan)}, '`curvature` must be float'),
    ({'num_steps': 0}, '`num_multipliers` and `num_steps` must be at least 1'),
  ],
)
def test_bad_input(change, said):
  with pytest.raises(ValueError, match=said):
    bounds.crc(**{'x': X, 'weights': [W1, W2], 'biases': [B1, B2], **change})
