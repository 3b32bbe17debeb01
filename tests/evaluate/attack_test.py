"""Attacks over a data set: survivors, records, resumption, what lies on the disk, flags, smoothed models."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import attacks, certify, configs, data, evaluate, records, smoothing, threats
from certjax.attacks import functional
from certjax.evaluate import _adversarials, _attack, _stored_sets, _targets

pytestmark = pytest.mark.usefixtures('many_programs')

EPS, NUMBER = 0.05, 11
W = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


def linear(x):
  return (x.reshape(len(x), -1) - 0.5) @ W


@pytest.fixture(scope='module')
def images():
  pixels = np.random.default_rng(2).integers(60, 200, (NUMBER, 3, 3, 1)).astype(np.uint8)
  labels = np.array(jnp.argmax(linear(data.to_float(pixels)), axis=1), np.int32)
  labels[2] = (labels[2] + 1) % 3  # Wrong without an attack.
  return data.Images(pixels, labels, np.arange(NUMBER) * 5)


def towards(value, traces=None):
  """A part that moves all pixels by a value, of every image; appends to `traces` when it is traced."""

  def attack(key, model_fn, x, y):
    if traces is not None:
      traces.append(len(x))
    return jnp.clip(x + value, 0, 1)

  return attacks.Part('shift', attack, {'value': str(value)})


def turn(by):
  """A part that goes to the corner of the ball that suits class y + by best."""

  def attack(key, model_fn, x, y):
    slope = jnp.asarray(W.T)[(y + by) % 3] - jnp.asarray(W.T)[y]
    return jnp.clip(x + EPS * jnp.sign(slope).reshape(x.shape), 0, 1)

  return attacks.Part('turn', attack, {'by': by})


def run(out, images, plan, *, threat=None, target=None, **options):
  threat = threats.linf(EPS) if threat is None else threat
  target = evaluate.plain_target(linear, batch_size=3) if target is None else target
  options = {'header': {'run': 'tiny'}, 'batch_size': 3, **options}
  return evaluate.attacked(jax.random.key(0), out, target, plan, threat, images, **options)


def contents(out):
  """Relative path -> bytes of all that is deterministic."""
  files = (path for path in out.rglob('*') if path.suffix in ('.jsonl', '.npz'))
  return {str(p.relative_to(out)): p.read_bytes() for p in files if 'timing' not in p.name}


@pytest.fixture(scope='module')
def autoattack(tmp_path_factory, images):
  """(directory, result) of version 'rand', which has two parts."""
  out = tmp_path_factory.mktemp('autoattack')
  parts = attacks.autoattack_parts(threats.linf(EPS), 'rand', 3, num_steps=4)
  return out, run(out, images, {'autoattack': parts})


def test_survivors_give_the_points_of_the_one_trace(autoattack, images):
  out, result = autoattack
  x, y = data.to_float(images.images), jnp.asarray(images.labels)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(0), jnp.asarray(images.index, jnp.uint32)
  )
  whole = attacks.autoattack(threats.linf(EPS), version='rand', num_steps=4)
  x_adv = np.asarray(jax.jit(lambda keys, x, y: whole(keys, linear, x, y))(keys, x, y))
  right = np.asarray(jnp.argmax(linear(jnp.asarray(x_adv)), axis=1) == y)
  survives = result.survives('autoattack')
  np.testing.assert_array_equal(survives, right & result.clean.survives)
  assert 0 < survives.sum() < NUMBER - 1  # Some fall, some stay.
  stored = {}
  for path in sorted(out.glob('autoattack/*/adversarial/*.npz')):
    with np.load(path) as file:
      stored |= {int(i): row for i, row in zip(file['index'], file['x_adv'], strict=True)}
  for row in np.flatnonzero(
    result.clean.survives & ~survives
  ):  # A broken image is in no later part.
    np.testing.assert_allclose(stored[int(images.index[row])], x_adv[row], atol=1e-6)


def test_a_part_sees_survivors_only_in_one_shape(tmp_path, images):
  traces = []
  plan = {'two': (turn(1), towards(0.04, traces)), 'one': (towards(0.0, traces),)}
  result = run(tmp_path, images, plan)
  first, second = result.parts['two']
  assert first.index.tolist() == [5 * i for i in range(NUMBER) if i != 2]
  assert second.index.tolist() == first.index[first.survives].tolist() and not first.survives.all()
  assert traces == [3, 3]  # One trace a part, for whole and ragged batches.
  header, lines = records.read(tmp_path / 'two' / '2-shift')
  assert (
    header['part'] == 'shift'
    and header['settings'] == {'value': '0.04'}
    and header['run'] == 'tiny'
  )
  assert [line['index'] for line in lines] == second.index.tolist()
  expected = {'distance', 'index', 'label', 'predict', 'radius', 'success'}
  assert all(set(line) == expected and line['radius'] == 0 for line in lines)
  assert result.survives('one').tolist() == result.clean.survives.tolist()


def test_every_image_and_part_draws_for_itself(tmp_path, images):
  sample = jax.vmap(threats.linf(EPS).sample)
  random = attacks.Part('random', lambda key, model_fn, x, y: sample(key, x), {})
  result = run(tmp_path, images, {'two': (towards(0.0), random)})
  seen = result.parts['two'][1].index
  fold = jax.vmap(jax.random.fold_in, (None, 0))
  keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(
    fold(jax.random.key(0), jnp.asarray(seen, jnp.uint32))
  )
  expected = sample(keys, data.to_float(images.images[seen // 5]))
  paths = sorted((tmp_path / 'two' / '2-random' / 'adversarial').iterdir())
  stored = np.concatenate([np.load(path)['x_adv'] for path in paths])
  np.testing.assert_array_equal(stored, expected)


def test_worst_case_is_the_and_of_the_columns(tmp_path, images):
  plan = {'next': (turn(1),), 'last': (turn(2),)}
  result = run(tmp_path, images, plan)
  columns = [result.survives(name) for name in plan]
  assert (columns[0] & ~columns[1]).any() and (columns[1] & ~columns[0]).any()
  np.testing.assert_array_equal(result.survives_all(), columns[0] & columns[1])
  summary = evaluate.attack_summary(result, norm='linf', eps=EPS, unit='pixel value')
  rows = {
    row['name']: row for row in (summary['clean'], *summary['attacks'], summary['worst_case'])
  }
  assert rows['clean']['accuracy'] == (NUMBER - 1) / NUMBER
  for name, alive in zip(
    ('next', 'last', 'worst case'), (*columns, columns[0] & columns[1]), strict=True
  ):
    assert rows[name]['correct'] == alive.sum() and rows[name]['accuracy'] == alive.mean()
    assert rows[name]['broken'] == NUMBER - 1 - alive.sum() == rows[name]['wrong'] - 1
    assert rows[name]['distances']['0.5'] == pytest.approx(EPS, abs=1e-6)
  text = evaluate.write_attack_report(summary, tmp_path)
  assert f'| worst case | {rows["worst case"]["accuracy"]:.4f} |' in text
  assert json.loads((tmp_path / 'attacks.json').read_text()) == summary


def test_stopped_and_resumed_gives_the_same_bytes(tmp_path, images):
  plan = {'two': (turn(1), towards(0.04)), 'one': (towards(0.02),)}
  whole = run(tmp_path / 'whole', images, plan)
  asked = []
  for _ in range(20):
    asked.clear()
    result = run(tmp_path / 'parts', images, plan, stop=lambda: asked.append(1) or len(asked) > 5)
    if result is not None:
      break
    asked_more = len(asked)
    assert asked_more == 6
    records_there = list((tmp_path / 'parts').rglob('records.jsonl'))
    records_there[-1].write_bytes(records_there[-1].read_bytes() + b'{"torn')
    if len(records_there) >= 2:  # Enough: now to the end.
      result = run(tmp_path / 'parts', images, plan)
      break
  assert contents(tmp_path / 'parts') == contents(tmp_path / 'whole')
  np.testing.assert_array_equal(result.survives_all(), whole.survives_all())


def test_a_batch_that_lost_its_last_records(tmp_path, images):
  plan = {'shift': (towards(0.04),)}
  run(tmp_path, images, plan)
  before, path = contents(tmp_path), tmp_path / 'shift' / 'records.jsonl'
  path.write_bytes(b''.join(path.read_bytes().splitlines(keepends=True)[:3]))  # Two of three.
  run(tmp_path, images, plan)
  assert contents(tmp_path) == before


def test_another_configuration_is_refused(tmp_path, images):
  run(tmp_path, images, {'shift': (towards(0.04),)})
  with pytest.raises(ValueError, match="settings.value is '0.04' there and '0.02' here"):
    run(tmp_path, images, {'shift': (towards(0.02),)})
  with pytest.raises(ValueError, match="run is 'tiny' there and 'other' here"):
    run(tmp_path, images, {}, header={'run': 'other'})


@pytest.mark.parametrize(
  'value, said', [(0.5, 'beyond eps=0.05'), (jnp.nan, 'outside'), (-0.2, 'beyond eps=0.05')]
)
def test_a_point_outside_the_set_is_refused(tmp_path, images, value, said):
  with pytest.raises(ValueError, match=said):
    run(tmp_path, images, {'shift': (towards(value),)})
  assert records.read(tmp_path / 'shift')[1] == []  # Nothing was recorded.


@pytest.mark.parametrize('forgery', ['far', 'moved', 'gone', 'torn', 'others', 'record'])
def test_a_forgery_is_found(tmp_path, images, forgery):
  plan = {'shift': (towards(0.04),)}
  run(tmp_path, images, plan)
  path = tmp_path / 'shift' / 'adversarial' / '00000000.npz'
  index, x_adv = (np.load(path)[name].copy() for name in ('index', 'x_adv'))
  said = 'is not confirmed'
  if forgery == 'far':
    x_adv[1, 0, 0, 0] = 1.0
    evaluate.write_adversarials(path, index, x_adv)
    said = 'row 1 is at linf distance'
  elif forgery == 'moved':
    x_adv[1] -= 0.01
    evaluate.write_adversarials(path, index, x_adv)
  elif forgery == 'others':
    evaluate.write_adversarials(path, index + 1, x_adv)
    said = 'holds other images'
  elif forgery == 'torn':
    path.write_bytes(path.read_bytes()[:100])
    said = 'damaged'
  elif forgery == 'gone':
    path.unlink()
    said = 'are missing'
  else:
    lines = tmp_path / 'shift' / 'records.jsonl'
    label = records.read(tmp_path / 'shift')[1][0]['predict']
    old, new = (f'"predict": {value}'.encode() for value in (label, (label + 1) % 3))
    lines.write_bytes(lines.read_bytes().replace(old, new, 1))
  with pytest.raises(ValueError, match=said):
    run(tmp_path, images, plan)


SEARCH = {'num_steps': 3, 'step_size': 0.03, 'optimizer': 'sign'}


def latents(threat):
  """A plan of its search, and the set that checks it."""
  part = attacks.Part('latent', _stored_sets.latent_search(threat, **SEARCH), {})
  return {'latent': (part,)}, _stored_sets.latent_set(threat.name, threat, batch_size=3)


def test_latents_are_those_of_the_search(tmp_path, images):
  threat = functional.additive(EPS)
  plan, reach = latents(threat)
  result = run(tmp_path, images, plan, threat=reach)
  assert 0 < result.survives('latent').sum() < NUMBER - 1
  seen = result.parts['latent'][0].index
  x, y = data.to_float(images.images[seen // 5]), jnp.asarray(images.labels[seen // 5])
  keys = jax.random.split(jax.random.key(0), len(seen))  # Nothing is drawn.
  whole = functional.latent_attack(threat, **SEARCH)
  x_adv = jax.jit(lambda keys, x, y: whole(keys, linear, x, y))(keys, x, y)
  stored = [_adversarials.read_stored(path, index) for path, index in batches(tmp_path, seen)]
  latent = np.concatenate([arrays['latent'] for arrays in stored])
  image = np.concatenate([arrays['x_adv'] for arrays in stored])
  np.testing.assert_allclose(image, x_adv, atol=1e-6)
  np.testing.assert_allclose(np.clip(x + latent.reshape(x.shape), 0, 1), image, atol=1e-6)
  distance = result.parts['latent'][0].distance
  np.testing.assert_allclose(distance, np.abs(latent).max(axis=1))
  assert distance.max() == np.float32(EPS)


def batches(out, index):
  paths = sorted((out / 'latent' / 'adversarial').iterdir())
  return zip(paths, np.split(index, range(3, len(index), 3)), strict=True)


def test_a_latent_of_random_places_makes_its_image_again(tmp_path, images):
  threat = functional.snow(0.5, number=2)
  plan, reach = latents(threat)
  run(tmp_path, images, plan, threat=reach)
  x = data.to_float(images.images[[0, 1, 3]])
  stored = _adversarials.read_stored(
    tmp_path / 'latent' / 'adversarial' / '00000000.npz', [0, 5, 15]
  )
  latent = stored['latent']
  assert latent.shape == (3, 2 + 4 + 2) and len(np.unique(latent[:, 2])) == 3
  assert (reach.check(x, stored, 'here') <= 0.5).all() and latent[:, :2].max() > 0
  dark = {**stored, 'latent': latent * np.where(np.arange(8) < 2, -1, 1).astype(np.float32)}
  with pytest.raises(ValueError, match='has a latent at distance .*, outside of snow at 0.5'):
    reach.check(x, dark, 'here')  # No larger, but of the other sign.
  with pytest.raises(ValueError, match='from what its latent makes'):
    reach.check(x, {**stored, 'x_adv': stored['x_adv'][::-1]}, 'here')
  nan = {**stored, 'latent': latent * np.float32(np.nan)}
  with pytest.raises(ValueError, match='row 0 has a latent at distance nan'):
    reach.check(x, nan, 'here')


def activations(scale, x):
  """Two channels, so that phi is the direction of (x, scale)."""
  return (jnp.concatenate([x, jnp.full_like(x, scale)], axis=-1),), linear(x)


def test_perceptual_distances_are_measured_again(tmp_path, images):
  feature_fn = jax.tree_util.Partial(activations, np.float32(0.5))
  target = evaluate.plain_target(linear, batch_size=3)
  climbed = _stored_sets.perceptual_target(target, feature_fn, own=False)
  part = attacks.Part('lpa', attacks.fast_lpa(eps=0.04, num_steps=2, projection='bisection'), {})
  reach = _stored_sets.perceptual_set(0.04, feature_fn, batch_size=3)
  result = run(tmp_path, images, {'lpa': (part,)}, threat=reach, target=climbed)
  assert 0 < result.survives('lpa').sum() < NUMBER - 1
  assert _stored_sets.perceptual_target(target, feature_fn, own=True).model_fn is feature_fn
  x = data.to_float(images.images[[0, 1, 3]])
  with np.load(tmp_path / 'lpa' / 'adversarial' / '00000000.npz') as file:
    stored = {'x_adv': file['x_adv']}
  phi = lambda x: np.concatenate([x, np.full_like(x, 0.5)], -1) / np.hypot(x, 0.5)
  by_hand = np.sqrt(
    ((phi(stored['x_adv'].astype(float)) - phi(x.astype(float))) ** 2).sum((1, 2, 3)) / 9
  )
  found = reach.check(x, stored, 'here')
  np.testing.assert_allclose(found, by_hand, rtol=1e-5)
  np.testing.assert_array_equal(found, result.parts['lpa'][0].distance[:3])
  assert found.max() > 0.03
  narrow = _stored_sets.perceptual_set(float(found.max()) - 3e-4, feature_fn, batch_size=3)
  with pytest.raises(ValueError, match='is at LPIPS distance .*, beyond eps='):
    narrow.check(x, stored, 'here')
  with pytest.raises(ValueError, match='outside'):
    reach.check(x, {'x_adv': x * np.float32(np.nan)}, 'here')


def test_at_0_an_image_is_itself(images):
  """Even where features are blind, or a latent lies in its set."""
  x = data.to_float(images.images[:3])
  moved = np.nextafter(x, np.float32(1))
  blind = jax.tree_util.Partial(lambda x: ((0 * x,), linear(x)))
  sets = {
    'lpips': _stored_sets.perceptual_set(0.0, blind, batch_size=3),
    'stadv': _stored_sets.latent_set('stadv', functional.stadv(0.0), batch_size=3),
  }
  for name, reach in sets.items():
    stored = reach.store(x, np.zeros((3, 18)) if name == 'stadv' else x)
    np.testing.assert_array_equal(stored['x_adv'], x)
    assert reach.check(x, stored, 'here').tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match='row 0 differs by .*beyond eps=0'):
      reach.check(x, {**stored, 'x_adv': moved}, 'here')


def test_distances_of_the_host_are_those_of_the_threats():
  x, x_adv = np.random.default_rng(3).uniform(0, 1, (2, 4, 5, 3)).astype(np.float32)
  x_adv[0], x_adv[:, 4] = x[0], x[:, 4]
  for norm, eps in {'linf': 1.0, 'l2': 9.0, 'l1': 99.0, 'l0': 20, 'patch': 4}.items():
    expected = float(jax.jit(configs.threat_of(norm, eps).distance)(x, x_adv))
    assert evaluate.host_distance(norm, x, x_adv) == pytest.approx(expected, rel=1e-6)
  assert _adversarials.allowance('l2', 0.0, 100) == 0  # eps = 0 forgives nothing.
  same = np.full((1, 2, 2, 1), 0.5, np.float32)
  moved = np.nextafter(same, np.float32(1))
  assert evaluate.check_adversarials('linf', 0.0, same, same, 'here').tolist() == [0]
  with pytest.raises(ValueError, match='here: row 0 is at linf distance'):
    evaluate.check_adversarials('linf', 0.0, same, moved, 'here')
  with pytest.raises(ValueError, match='float32 of shape'):
    evaluate.check_adversarials('linf', 0.1, same, same.astype(np.float64), 'here')


def test_predict_judges_a_smoothed_model_and_may_abstain(tmp_path, images):
  noise = smoothing.uniform(sigma=0.1)
  options = {'num_samples': 120, 'alpha': 0.001}
  target = evaluate.smoothed_target(
    jax.random.key(5), linear, noise, num_noises=4, chunk=60, **options
  )
  part = attacks.Part('pgd', attacks.pgd(threats.linf(EPS), step_size=0.05, num_steps=3), {})
  result = run(tmp_path, images, {'pgd': (part,)}, target=target)
  key = jax.random.split(jax.random.key(5), 3)[1]
  x, index = data.to_float(images.images), images.index
  votes = certify.predict_votes(
    key, linear, noise, x, index=index, num_samples=120, chunk=60, slots=_targets._SLOTS
  )
  expected = certify.label_from_votes(votes, alpha=0.001)
  np.testing.assert_array_equal(result.clean.predict, expected)
  summary = evaluate.attack_summary(result, norm='linf', eps=EPS, unit='pixel value')
  (attacked,) = summary['attacks']
  assert attacked['abstained'] > 0  # Close votes are no answer,
  assert attacked['correct'] + attacked['wrong'] + attacked['abstained'] == NUMBER
  survives = result.survives('pgd')
  assert attacked['correct'] == survives.sum() < result.clean.survives.sum()  # and no right one.


def test_votes_of_views_stay_on_their_grid(tmp_path, images):
  views = smoothing.deterministic_splitting(lam=0.2, shape=(3, 3, 1))
  target = evaluate.views_target(lambda x: linear(x[..., :1]), views, chunk=51)
  result = run(tmp_path, images, {'shift': (towards(0.0487),)}, target=target)
  with np.load(tmp_path / 'shift' / 'adversarial' / '00000000.npz') as file:
    steps = file['x_adv'].astype(np.float64) * 255
  np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
  x = data.to_float(images.images)
  expected = certify.enumerated(
    lambda x: linear(x[..., :1]), views, x, chunk=51, slots=_targets._SLOTS
  ).label
  np.testing.assert_array_equal(result.clean.predict, expected)


def test_rounding_to_the_grid_never_moves_farther():
  x = data.to_float(np.arange(256, dtype=np.uint8))
  for delta in (0.0, 0.1, -0.1, 1 / 255, -7 / 255):
    x_adv = np.clip(x + np.float32(delta), 0, 1)
    rounded = _targets.on_grid(x, x_adv, 255)
    assert (np.abs(rounded - x) <= np.abs(x_adv - x) + 1e-7).all()
    assert (np.abs(rounded - x_adv) < 1 / 255).all()
    if delta in (0.0, 1 / 255, -7 / 255):
      np.testing.assert_allclose(rounded, x_adv, atol=1e-7)
  assert np.array_equal(_targets.on_grid(x, x, 255), x)


def flags(model_fn, **options):
  x = np.random.default_rng(2).uniform(0.2, 0.8, (3, 3, 3, 1)).astype(np.float32)
  return {flag.name: flag for flag in evaluate.distrust_flags(model_fn, x, [0, 1, 2], **options)}


def four(x):
  return jnp.concatenate([linear(x), 0 * linear(x)[:, :1]], axis=1)


def test_flags():
  assert flags(four) == {}
  assert set(flags(lambda x: linear(jnp.round(x)))) == {'few-classes', 'zero-gradients'}
  sure = flags(lambda x: 1e4 * jax.nn.one_hot(jnp.array([0, 1, 2]), 4) + four(x))
  assert set(sure) == {'zero-gradients'}
  assert 'the cross-entropy has no gradient at 3 of 3' in sure['zero-gradients'].message
  energy = lambda x: jnp.sum(four(x) ** 2)
  root = lambda x: jnp.sqrt(x - jax.lax.stop_gradient(x))  # 0, whose slope is infinite.
  optimised = flags(lambda x: four(x + root(x) - 0.01 * jax.grad(energy)(x)))
  assert set(optimised) == {'nan', 'optimisation'}
  assert 'a gradient' in optimised['optimisation'].message
  loop = lambda x: jax.lax.while_loop(
    lambda x: x.max() > 9, lambda x: x / 2, jax.lax.stop_gradient(x)
  )
  looped = flags(lambda x: jax.nn.softmax(four(loop(x)) + four(x)))
  assert set(looped) == {'probabilities', 'optimisation'}
  assert 'a loop whose length' in looped['optimisation'].message
  state = np.random.default_rng(0)
  draw = lambda x: jax.pure_callback(
    lambda x: state.normal(size=(len(x), 4)).astype(np.float32),
    jax.ShapeDtypeStruct((len(x), 4), jnp.float32), x,
  )  # fmt: skip
  assert set(flags(four, outputs=draw)) == {'random'}


def test_square_that_beats_the_others():
  (flag,) = evaluate.square_flag('autoattack', 3, 1000)
  assert flag.name == 'square' and flag.link.endswith('#flag-square')
  assert evaluate.square_flag('autoattack', 2, 1000) == []


def test_bad_arguments(tmp_path, images):
  with pytest.raises(ValueError, match='`batch_size` must be at least 1, got 0'):
    run(tmp_path, images, {}, batch_size=0)
  with pytest.raises(ValueError, match='must be local, got gs://'):
    run('gs://bucket/run', images, {})
  with pytest.raises(ValueError, match='always abstains'):
    evaluate.smoothed_target(
      jax.random.key(0), linear, smoothing.gaussian(sigma=1.0), num_samples=5
    )
  assert _attack.CLEAN == 'clean'
