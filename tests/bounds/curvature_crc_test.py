"""The dual certificate of curvature: published case, true distances by search, unfinished searches."""

import numpy as np
import pytest
from scipy import optimize, special

from certjax import bounds, certify, parallel
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


def pairs_of(network, x, y, j):
  """(`Pairs`, the sizes of their offsets), one row of each."""
  return _curvature_crc._pairs(network, x, np.asarray(y), np.asarray(j)[:, None], 0.0)


def searched(network, pairs, num_steps=60):
  hidden, steps = (network.weights, network.biases), np.int32(num_steps)
  found = _curvature_crc.search(*hidden, pairs, steps, activation=network.activation)
  return tuple(map(np.asarray, found))


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
  network = bounds.smooth_network([W1, W2], [B1, B2], curvature=m)
  with parallel.x64():
    eta, _ = searched(network, pairs_of(network, X, [1], [0])[0])
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
  network = bounds.smooth_network(weights, biases, activation=activation)
  proof = bounds.crc_of(network, x)
  with parallel.x64():
    _, closed = _curvature_crc._closed_form(network, x, 0.0)
  true = np.array([
    min(distance(p, y, j, weights, biases, activation) for j in range(3) if j != y)
    for p, y in zip(x, proof.label, strict=True)
  ])  # fmt: skip
  assert [np.argmax(logits(p, weights, biases, activation)[0]) for p in x] == proof.label.tolist()
  assert (proof.radius >= closed.min(axis=1)).all() and (proof.radius <= true + 1e-9).all()
  assert (proof.radius > 1.0001 * closed.min(axis=1)).any()
  if len(sizes) == 3:
    assert (proof.radius > (1 - 1e-6) * true).sum() >= 2


@pytest.mark.parametrize('num_steps', [1, 2, 4])
def test_an_unfinished_search_proves_less_but_never_more(num_steps):
  weights, biases = random_network(5, (4, 12, 4), 2.0)
  x = np.random.default_rng(2).normal(size=(40, 4))
  network = bounds.smooth_network(weights, biases, activation='tanh')
  full = bounds.crc_of(network, x, num_steps=300)
  short = bounds.crc_of(network, x, num_steps=num_steps)
  assert (short.radius <= full.radius * (1 + 1e-7)).all()
  assert (short.radius < full.radius * (1 - 1e-3)).any()
  default = bounds.crc_of(network, x)
  assert (default.radius >= (1 - 1e-6) * full.radius).all()


@pytest.mark.parametrize('activation, gain', [('sigmoid', 1.0), ('tanh', 0.5), ('softplus', 2.0)])
def test_the_search_finds_the_best_multiplier(activation, gain):
  """Against a grid of eta, each with its minimiser by Newton's method of scipy."""
  weights, biases = random_network(7, (4, 12, 3), gain)
  x = np.random.default_rng(6).normal(size=(3, 4))
  network = bounds.smooth_network(weights, biases, activation=activation)
  label = [np.argmax(logits(p, weights, biases, activation)[0]) for p in x]
  pairs, size = pairs_of(network, x, label, [(y + 1) % 3 for y in label])
  with parallel.x64():
    found = _curvature_crc._proved(network, pairs, size, *searched(network, pairs))

  def best_of_grid(p, y, m):
    """max over eta of min over x, by scipy."""
    gap = lambda z: (lambda f, d: (f[y] - f[(y + 1) % 3], d[y] - d[(y + 1) % 3]))(
      *logits(z, weights, biases, activation)
    )

    def least(eta):
      def dual(z):
        value, slope = gap(z)
        return ((z - p) ** 2).sum() / 2 + eta * value, z - p + eta * slope

      return optimize.minimize(dual, p, jac=True, tol=1e-10).fun

    return max(map(least, np.linspace(0.05, 0.999, 20) / m))

  best = np.array([best_of_grid(*each) for each in zip(x, label, pairs.bend, strict=True)])
  assert (found**2 / 2 >= (1 - 1e-6) * best).all() and (found**2 / 2 <= 1.1 * best).all()


def test_the_margin_counts_where_curvature_proves_less():
  """f_0 - f_1 = 30 - softplus(x) at 20 falls with its full slope: 10 to the boundary, 8 by curvature."""
  network = [[[1.0]], [[-1.0], [0.0]]], [[0.0], [30.0, 0.0]]
  assert bounds.hidden_lipschitz(network[0]) == pytest.approx(1.0, rel=1e-12)
  proof = bounds.crc([[20.0]], *network)
  assert proof.radius[0] == pytest.approx(10.0, rel=1e-8) and proof.radius[0] < 10
  without = bounds.crc([[20.0]], *network, lipschitz=1e9)
  assert without.radius[0] == pytest.approx(8.0, rel=1e-3)


def test_slack_moves_the_boundary():
  """f_y - f_j of one softplus must stay above the slack: a closed form; ties never certify."""
  weights, biases, x = [[[3.0]], [[1.0], [0.0]]], [[0.0], [0.0, 1.0]], np.array([[0.5], [2.0]])
  network = bounds.smooth_network(weights, biases)
  proof = bounds.crc_of(network, x, slack=0.25)
  true = x[:, 0] - np.log(np.exp(1.25) - 1) / 3
  np.testing.assert_allclose(proof.radius, true, rtol=1e-7)
  assert (proof.radius <= true).all()
  assert bounds.crc_of(network, x, slack=50.0).radius.tolist() == [0, 0]
  tie = bounds.crc(x, [[[3.0]], [[1.0], [1.0]]], [[0.0], [0.5, 0.5]])
  assert tie.label.tolist() == [0, 0] and tie.radius.tolist() == [0, 0]


def test_any_multiplier_and_any_point_are_sound():
  """What is proved from 20,000 random (eta, x), far from the optimum, stays below the distance."""
  rng = np.random.default_rng(3)
  count, m = 20_000, bounds.curvature(W1, W2)
  network = bounds.smooth_network([W1, W2], [B1, B2], curvature=m)
  start = np.repeat(X, count, axis=0)
  pairs, size = pairs_of(network, start, np.ones(count, int), np.zeros(count, int))
  eta = rng.uniform(-0.2, 1.2, count) / m[1, 0]
  x = start + rng.normal(size=start.shape) * rng.exponential(0.3, (count, 1))
  with parallel.x64():
    radius = _curvature_crc._proved(network, pairs, size, eta, x)
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
  network = bounds.smooth_network(
    weights, biases, activation=activation, curvature=np.zeros((2, 2))
  )
  pairs, size = pairs_of(network, x, [0], [1])
  with parallel.x64():
    enclosed = _curvature_crc._enclosed(
      network, _curvature_crc._hidden(network, x), pairs.row[:, None], pairs.offset[:, None],
      size[:, None],
    )  # fmt: skip
  value, wrong, slope, tilt = (part[:, 0] for part in enclosed)
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
    ({'num_steps': 0}, '`num_steps` must be at least 1'),
    ({'batch': 0}, '`batch` must be at least 1'),
    ({'lipschitz': np.inf}, '`lipschitz` must be at least 0 and finite'),
  ],
)
def test_bad_input(change, said):
  with pytest.raises(ValueError, match=said):
    bounds.crc(**{'x': X, 'weights': [W1, W2], 'biases': [B1, B2], **change})
