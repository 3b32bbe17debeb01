"""Curvature of smooth networks: published cases, the Hessian itself, the true distance by search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from certjax import attacks, bounds, certify, layers, parallel, threats

W1, B1 = np.array([[1, 2], [-1, 0.5], [0.3, -1]]), np.array([0.1, -0.2, 0.0])
W2, B2 = np.array([[1, -2, 0.5], [-0.5, 1, 1.5]]), np.array([0.3, -0.1])
X = np.array([-0.6, 0.8])


def head(z, first=W1, first_bias=B1, last=W2, last_bias=B2, beta=1.0):
  """The network, in whatever arithmetic `z` brings."""
  xp = jnp if isinstance(z, jax.Array) else np
  return xp.logaddexp(0.0, beta * (z @ first.T + first_bias)) / beta @ last.T + last_bias


def random_head(seed, features, hidden, num_classes):
  rng = np.random.default_rng(seed)
  shapes = (hidden, features), (hidden,), (num_classes, hidden), (num_classes,)
  return [rng.normal(size=shape) for shape in shapes]


def expand(z, weights, beta=1.0):
  m = bounds.curvature(weights[0], weights[2], beta=beta)
  return bounds.expansion(z, *weights, curvature=m, beta=beta)


def distance(weights, x, y, rivals, *, beta=1.0, num_angles=4000, furthest=40.0):
  """The true distance from x, in the plane, to the nearest point where a rival catches up."""
  angles = np.linspace(0, 2 * np.pi, num_angles, endpoint=False)
  directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  radii = np.linspace(0, furthest, 2000)[1:]

  def lead(point):
    f = head(point, *weights, beta=beta)
    return np.min(f[..., [y]] - f[..., rivals], axis=-1)

  lost = np.array([lead(x + r * directions) <= 0 for r in radii])
  if not lost.any():
    return furthest
  end = 1.01 * radii[np.argmax(lost.any(axis=1))]

  def reach(angle):
    along = lambda r: lead(x + r * np.array([np.cos(angle), np.sin(angle)]))
    return optimize.brentq(along, 0, end) if along(end) <= 0 else end

  near = angles[lead(x + end * directions) <= 0][::10]
  ends = [(angle - 0.02, angle + 0.02) for angle in near]
  return min(optimize.minimize_scalar(reach, bounds=e, method='bounded').fun for e in ends)


def test_constants_of_second_derivatives():
  """Reference case 22, and the derivatives themselves on a grid."""
  t = jnp.linspace(-6, 6, 20001)
  functions = {'softplus': jax.nn.softplus, 'sigmoid': jax.nn.sigmoid, 'tanh': jnp.tanh}
  largest = {'softplus': 0.25, 'sigmoid': 0.0962250449, 'tanh': 0.7698003589}
  for name, activation in bounds.SMOOTH_ACTIVATIONS.items():
    assert activation.high == pytest.approx(largest[name], abs=1e-10)
    slopes = jax.vmap(jax.grad(functions[name]))(t)
    bends = jax.vmap(jax.grad(jax.grad(functions[name])))(t)
    assert activation.low - 1e-6 <= bends.min() and bends.max() <= activation.high + 1e-6
    assert abs(float(slopes.max()) - activation.slope) < 3e-3
    assert abs(float(bends.max()) - activation.high) < 1e-5
    assert name == 'softplus' or abs(float(bends.min()) - activation.low) < 1e-5


def test_the_published_case():
  """Reference case 23: the margin at X is f_1 - f_0; what bends down there is what f_0 - f_1 bends up."""
  m = bounds.curvature(W1, W2)
  assert m[1, 0] == pytest.approx(1.875, abs=1e-9)
  assert m[0, 1] == pytest.approx(1.0851627328, abs=1e-9)
  deep = bounds.deep_curvature([W1, W2])
  assert deep[0, 1] == deep[1, 0] == pytest.approx(4.2405272175, abs=1e-9)
  around = bounds.expansion(X, W1, B1, W2, B2, curvature=m)
  assert int(around.label) == 1
  assert around.gap[0] == pytest.approx(1.3509789694, abs=1e-9)
  assert around.slope[0] == pytest.approx(3.4510585335, abs=1e-9)
  radius = float(certify.curvature_margin(*around).radius)
  assert radius == pytest.approx(0.3568707951, abs=1e-9)
  looser = float(certify.curvature_margin(*around._replace(curvature=deep[1])).radius)
  assert looser == pytest.approx(0.3261242833, abs=1e-9)
  true = distance((W1, B1, W2, B2), X, 1, [0])
  assert true == pytest.approx(0.3800155962, abs=1e-6)
  first_order = around.gap[0] / around.slope[0]  # No certificate: it lies beyond the boundary.
  assert 0.1623309194 < looser < radius < true < first_order == pytest.approx(0.3914679963)


def test_three_layers():
  """Reference case 25."""
  weights = [np.diag([1.0, 2.0]), np.array([[1.0, 1], [0, 1]]), np.array([[1.0, -2], [0, 0]])]
  found = bounds.deep_curvature(weights, activation='sigmoid')
  assert found[0, 1] == pytest.approx(0.4146353536, abs=1e-9)


@pytest.mark.parametrize('seed, beta', [(0, 1.0), (1, 4.0), (2, 0.5)])
def test_no_hessian_bends_further(seed, beta):
  """Smallest eigenvalues of 20,000 Hessians of every f_y - f_j, taken from JAX, dense and far out."""
  first, first_bias, last, last_bias = random_head(seed, 3, 6, 4)
  m = bounds.curvature(first, last, beta=beta)
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(20000, 3)) * rng.exponential(2, size=(20000, 1))
  bend = lambda z: jax.hessian(lambda z: head(z, first, first_bias, last, last_bias, beta))(z)
  with parallel.x64():
    each = np.asarray(jax.jit(jax.vmap(bend))(jnp.asarray(z)))
  smallest = np.linalg.eigvalsh(each[:, :, None] - each[:, None]).min(axis=(0, -1))
  assert (smallest >= -m - 1e-9).all()
  off = ~np.eye(4, dtype=bool)
  assert (smallest[off] <= 1e-9 - 0.2 * m[off]).all()  # The bound is of the right size.
  assert (m <= bounds.deep_curvature([beta * first, last / beta])).all()


def test_one_hidden_unit_is_exact():
  """beta / 4 |w| |W_1|^2, taken where its input is 0; more inputs than units and the reverse."""
  first, last = np.array([[3.0, 4.0]]), np.array([[2.0], [-1.0], [0.5]])
  m = bounds.curvature(first, last, beta=2.0)
  expected = 25 * 2.0 / 4 * np.maximum(last.T - last, 0)
  np.testing.assert_allclose(m, expected, rtol=1e-11)
  assert (m >= expected).all()
  rng = np.random.default_rng(0)
  for hidden, features in ((3, 7), (7, 3)):
    first, last = rng.normal(size=(hidden, features)), rng.normal(size=(2, hidden))
    bend = np.minimum(0, 0.25 * (last[0] - last[1]))
    exact = -np.linalg.eigvalsh(first.T @ np.diag(bend) @ first)[0]
    np.testing.assert_allclose(bounds.curvature(first, last)[0, 1], exact, rtol=1e-11)


@pytest.mark.parametrize('seed', range(6))
def test_the_radius_never_exceeds_the_true_distance(seed):
  """Of all rivals, by search in the plane."""
  weights = random_head(seed, 2, 5, 4)
  x = np.random.default_rng(seed + 100).normal(size=2)
  around = expand(x, weights, beta=2.0)
  radius, y = float(certify.curvature_margin(*around).radius), int(around.label)
  rivals = [j for j in range(4) if j != y]
  true = distance(weights, x, y, rivals, beta=2.0)
  assert 0 < radius <= true + 1e-9
  assert radius > 0.2 * true


def test_the_errors_of_float64_are_paid():
  """Gap and slope against 60 digits, where sums cancel ten digits."""
  import mpmath

  rng = np.random.default_rng(5)
  first, first_bias, last, last_bias = random_head(5, 4, 6, 2)
  first_bias, last, last_bias = 1e9 + first_bias, 1e4 * last, np.zeros(2)
  z = -1e9 / 4 * np.linalg.pinv(first) @ np.ones(6) * 4 + rng.normal(size=4)
  around = expand(z, (first, first_bias, last, last_bias))
  with mpmath.workdps(60):
    exact = lambda a: [mpmath.mpf(float(v)) for v in a]
    before = [
      mpmath.fdot(exact(row), exact(z)) + mpmath.mpf(float(b))
      for row, b in zip(first, first_bias, strict=True)
    ]
    values = [mpmath.log1p(mpmath.exp(t)) for t in before]
    slopes = [1 / (1 + mpmath.exp(-t)) for t in before]
    y, j = int(around.label), 1 - int(around.label)
    w = [mpmath.mpf(float(a)) - mpmath.mpf(float(b)) for a, b in zip(last[y], last[j], strict=True)]
    gap = mpmath.fdot(w, values)
    gradient = [
      mpmath.fsum(a * s * mpmath.mpf(float(v)) for a, s, v in zip(w, slopes, column, strict=True))
      for column in first.T
    ]
    slope = mpmath.sqrt(mpmath.fsum(g * g for g in gradient))
    assert mpmath.mpf(float(around.gap[j])) <= gap
    assert mpmath.mpf(float(around.slope[j])) >= slope
    assert abs(around.gap[j] - gap) < 1e-3 * abs(gap) and around.slope[j] < 1.001 * slope


def test_an_attack_never_breaks_a_certificate_of_the_whole_network():
  """Pixels -> orthogonal features -> curvature head, with the features' float32 error in `slack`."""
  features = layers.OrthogonalLinear(12)
  smooth = layers.CurvatureHead(5, hidden=20, beta=3.0)
  x = jax.random.uniform(jax.random.key(0), (64, 12), minval=0.3, maxval=0.7)
  below = features.init(jax.random.key(1), x)
  above = smooth.init(jax.random.key(2), x)
  above = jax.tree.map(lambda leaf: 2.0 * leaf, above)  # Bends visibly.
  matrices = smooth.matrices(above)
  m = bounds.curvature(matrices['first'], matrices['last'], beta=3.0)
  z = np.asarray(layers.materialize(features, below)(x), np.float64)
  around = bounds.expansion(z, **matrices, curvature=m, beta=3.0)
  bound = layers.lipschitz_upper(features, below)
  proof = certify.curvature_margin(*around, lipschitz=bound, slack=1e-5)
  assert (proof.radius > 0).mean() > 0.9 and np.median(proof.radius) > 0.01

  model_fn = jax.jit(lambda x: smooth.apply(above, features.apply(below, x)))
  np.testing.assert_allclose(
    model_fn(x), head(z, *(matrices[k] for k in ('first', 'first_bias', 'last', 'last_bias')), 3.0),
    atol=1e-4,
  )  # fmt: skip

  def attacked(factor):
    """The classes at the best point that PGD finds within `factor` radii of each image."""
    one = lambda key, x, y, eps: attacks.pgd(
      threats.l2(eps), step_size=eps / 8, num_steps=40, loss=attacks.margin
    )(key[None], model_fn, x[None], y[None])[0]
    keys = jax.random.split(jax.random.key(3), len(x))
    eps = jnp.asarray(factor * proof.radius, jnp.float32)
    labels = jnp.asarray(proof.label, jnp.int32)
    return np.argmax(jax.jit(lambda *each: model_fn(jax.vmap(one)(*each)))(keys, x, labels, eps), 1)

  assert (attacked(0.999) == proof.label).all()
  assert (attacked(3.0) != proof.label).mean() > 0.3  # The attack is no straw man.


def test_head_states_its_constant():
  module = layers.CurvatureHead(3, hidden=4, beta=2.0)
  z = jax.random.normal(jax.random.key(0), (50, 6))
  variables = module.init(jax.random.key(1), z)
  bound = layers.lipschitz_upper(module, variables)
  jacobian = jax.jit(jax.vmap(jax.jacobian(lambda z: module.apply(variables, z))))
  jacobians = jacobian(10 * z)
  assert np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2)).max() <= bound
  np.testing.assert_array_equal(
    layers.materialize(module, variables)(z), module.apply(variables, z)
  )
  with pytest.raises(ValueError, match='`beta` must be positive, got num_classes=3, .*beta=0'):
    layers.CurvatureHead(3, beta=0.0).init(jax.random.key(0), z)


@pytest.mark.parametrize(
  'call, said',
  [
    (lambda: bounds.curvature(W1, W2.T), '`weights` must be two or more matrices'),
    (lambda: bounds.curvature(W1 * np.nan, W2), '`weights` must be finite'),
    (lambda: bounds.curvature(W1, W2, activation='relu'), '`activation` must be one of softplus'),
    (lambda: bounds.curvature(W1, W2, beta=0.0), '`beta` must be positive'),
    (lambda: bounds.deep_curvature([W1]), '`weights` must be two or more matrices'),
    (
      lambda: bounds.expansion(X, W1, B1, W2, B2[:1], curvature=np.zeros((2, 2))),
      '`z`, `first_bias`, `last_bias` and `curvature` must have shapes',
    ),
  ],
)
def test_bad_input(call, said):
  with pytest.raises(ValueError, match=said):
    call()
