"""foolbox and ART: our models under their attacks, their attacks as ours. Skipped where they are not installed."""

import ast
import importlib
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, threats

EPS = 0.02
GUIDE = pathlib.Path(__file__).parents[2] / 'docs' / 'pages' / 'guides' / 'coming_from.md'


@pytest.fixture(scope='module')
def linear():
  """(model_fn, x, y, least L_inf distance to the other class of each image)."""
  w = jax.random.normal(jax.random.key(0), (16,))
  bias = -0.5 * jnp.sum(w)  # The middle of [0, 1] lies on the boundary.

  def model_fn(x):
    score = x.reshape(len(x), -1) @ w + bias
    return jnp.stack([score, -score], axis=1)

  x = 0.5 + 0.1 * jax.random.uniform(jax.random.key(1), (12, 4, 4, 1), minval=-1)
  y = model_fn(x).argmax(axis=1)
  return model_fn, x, y, jnp.abs(model_fn(x)[:, 0]) / jnp.sum(jnp.abs(w))


def test_an_attack_of_another_library_is_called_as_ours():
  def lighter(model, x, criterion, *, epsilons):
    return x, x + epsilons, None

  pytest.importorskip('foolbox', reason='foolbox is not installed')
  model_fn = lambda x: jnp.stack([jnp.full(len(x), 1.25), x.sum(axis=1)], axis=1)
  x = jnp.array([[0.5, 0.5], [0.25, 0.25], [0.0, 1.0]])
  attack = attacks.from_foolbox(lighter, eps=0.25)
  found = attack(None, model_fn, x, jnp.zeros(3, jnp.int32))
  # The second stays right, the third would leave [0, 1].
  np.testing.assert_allclose(found, [[0.75, 0.75], [0.25, 0.25], [0.0, 1.0]])


def test_eps_0_is_the_identity_without_foolbox():
  x = jnp.ones((2, 3))
  assert attacks.from_foolbox(None, eps=0)(None, None, x, None) is x
  with pytest.raises(ValueError, match='`eps` must be at least 0, got eps=-1'):
    attacks.from_foolbox(None, eps=-1)


@pytest.mark.filterwarnings('ignore')  # Of the libraries.
def test_foolbox_breaks_our_model_where_the_boundary_is_near(linear):
  foolbox = pytest.importorskip('foolbox', reason='foolbox is not installed')
  model_fn, x, y, least = linear
  model = foolbox.JAXModel(model_fn, bounds=(0, 1))
  _, _, broken = foolbox.attacks.LinfPGD(steps=40, rel_stepsize=0.1)(model, x, y, epsilons=EPS)
  np.testing.assert_array_equal(broken, least < EPS)
  assert 0 < broken.sum() < len(x)


@pytest.mark.filterwarnings('ignore')
def test_a_foolbox_attack_is_one_of_ours(linear):
  foolbox = pytest.importorskip('foolbox', reason='foolbox is not installed')
  model_fn, x, y, least = linear
  attack = attacks.from_foolbox(foolbox.attacks.LinfPGD(steps=40, rel_stepsize=0.1), eps=EPS)
  x_adv = attack(jax.random.key(2), model_fn, x, y)
  np.testing.assert_array_equal(model_fn(x_adv).argmax(axis=1) != y, least < EPS)
  distance = jax.vmap(threats.linf(EPS).distance)(x, x_adv)
  assert distance.max() <= EPS + 1e-6


@pytest.mark.filterwarnings('ignore')
def test_art_breaks_our_model_from_decisions_alone(linear):
  art = pytest.importorskip('art', reason='ART is not installed')
  from art.attacks.evasion import SquareAttack
  from art.estimators.classification import BlackBoxClassifierNeuralNetwork

  model_fn, x, y, least = linear
  predict = lambda x: np.asarray(jax.nn.softmax(model_fn(jnp.asarray(x, jnp.float32))))
  classifier = BlackBoxClassifierNeuralNetwork(
    predict, x.shape[1:], 2, channels_first=False, clip_values=(0, 1)
  )
  x_adv = SquareAttack(classifier, eps=EPS, max_iter=200, p_init=0.3).generate(
    np.asarray(x), np.asarray(y)
  )
  broken = predict(x_adv).argmax(axis=1) != y
  assert art.__version__ and broken.any()
  assert not (broken & np.asarray(least > EPS + 1e-6)).any()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  ('title', 'package', 'rooms', 'number'),
  [
    ('foolbox', 'foolbox', ['foolbox', 'foolbox.attacks'], 11),
    (
      'ART', 'art', [
        'art.attacks.evasion', 'art.estimators.classification',
        'art.estimators.certification.randomized_smoothing', 'art.estimators.certification.derandomized_smoothing',
      ], 12,
    ),
  ],
)  # fmt: skip
def test_the_guide_names_what_a_library_has(title, package, rooms, number):
  """Each call in the left column of its table exists, and takes these arguments."""
  pytest.importorskip(package, reason=f'{package} is not installed')
  section = GUIDE.read_text().split(f'\n## {title}\n')[1].split('\n## ')[0]
  left = [line.split(' | ')[0] for line in section.splitlines() if line.startswith('| `')]
  calls = [ast.parse(code).body[0].value for code in re.findall('`(.+?)`', ' '.join(left))]
  calls = [call for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)]
  assert len(calls) >= number
  modules = [importlib.import_module(room) for room in rooms]
  for call in calls:
    found = [getattr(module, call.func.id) for module in modules if hasattr(module, call.func.id)]
    assert found, f'{package} has no {call.func.id}'
    inspect.signature(found[-1]).bind(*call.args, **{word.arg: 0 for word in call.keywords})
