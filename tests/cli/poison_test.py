"""`certjax poison`: from digits to records, against the library; resumed, shared, refused."""

import json

import jax
import numpy as np
import pytest

from certjax import certify, cli, data, models, poisoning, records, report, train
from certjax.evaluate import _poisoning

K, GROUP = 20, 8
SMALL = (
  '--dataset', 'digits', '--partitions', K, '--learner', 'nearest-neighbour', '--evenly', 50,
  '--group', GROUP, '--chunk', 25,
)  # fmt: skip


@pytest.fixture(scope='module')
def dpa(once, data_dir):
  """The directory of a finished run (read only)."""

  def make(out):
    arguments = ('poison', 'dpa', *SMALL, '--data-dir', data_dir, '--out', out)
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once('poison-run', make)


def ensemble_votes(data_dir, partition, capacity, what=poisoning.votes, learner=None):
  x, y, _ = data.load('digits', 'train', data_dir=data_dir)
  queries = data.load('digits', 'test', data_dir=data_dir, indices=data.subset(500, evenly=50))
  learner = learner or poisoning.nearest_neighbour(10)
  ensemble = poisoning.train_ensemble(
    jax.random.key(0), learner, x, y, partition(x, y), capacity=capacity, group=GROUP
  )
  return what(ensemble, queries.images, chunk=25), queries.labels


def check_records(out, proof, votes, labels, norm):
  header, lines = records.read(out)
  assert header['norm'] == norm and header['unit'] == 'samples'
  assert header['quantifier'] == 'exact' and 'alpha' not in header
  assert [line['index'] for line in lines] == list(range(0, 500, 10))
  field = lambda name: np.array([line[name] for line in lines])
  np.testing.assert_array_equal(field('label'), labels)
  np.testing.assert_array_equal(field('predict'), proof.label)
  np.testing.assert_array_equal(field('radius'), proof.radius)
  np.testing.assert_array_equal(field('count'), (votes == proof.label[:, None]).sum(axis=1))
  np.testing.assert_array_equal(field('members_right'), (votes == labels[:, None]).sum(axis=1))
  return header


def by_hash(number, shifts=(0,)):
  return lambda x, y: poisoning.partition(
    x, y, poisoning.pixel_sum(x, number), number, shifts=shifts
  )


def test_dpa_is_the_library_s(dpa, data_dir):
  header, _ = records.read(dpa)
  votes, labels = ensemble_votes(data_dir, by_hash(K), header['config']['capacity'])
  proof = certify.aggregate(votes, 10)
  check_records(dpa, proof, votes, labels, 'symmetric difference')
  assert 3 <= np.median(proof.radius) <= K // 2 and header['config']['num_members'] == K
  config = json.loads((dpa / 'config.json').read_text())
  assert config['training_sha256'] == header['training_sha256'] and 'method' not in config
  run = report.load(dpa)
  assert report.median_radius(run.certificate, run.labels) >= 3
  assert '| poison-run | 50 |' in (dpa / 'table.md').read_text()


def test_an_interrupted_run_continues_and_run_off_shares_its_members(
  command, dpa, data_dir, tmp_path
):
  run = lambda method, *more: command('poison', method, *SMALL, '--data-dir', data_dir, *more)
  out, groups = tmp_path / 'again', [f'members-{start:06}.npz' for start in (0, 8, 16)]
  out.mkdir()
  for name in ('config.json', *groups[:2]):
    (out / name).write_bytes((dpa / name).read_bytes())
  whole = (dpa / 'records.jsonl').read_bytes()
  (out / 'records.jsonl').write_bytes(b''.join(whole.splitlines(keepends=True)[:4]))
  done = run('dpa', '--out', out)
  assert done.code == 0 and 'training: 2 of 3 groups of members done' in done.err
  assert (out / 'records.jsonl').read_bytes() == whole
  lines = records.read(out)[1]
  clean = np.mean([line['predict'] == line['label'] for line in lines])
  base = np.mean([line['members_right'] for line in lines]) / K
  assert f'clean accuracy {clean:.4f}, base accuracy {base:.4f} (20 members)' in done.out
  for name in groups:
    there, here = (np.load(each / name)['preferences'] for each in (dpa, out))
    np.testing.assert_array_equal(there, here)
  elected = run('run-off', '--out', tmp_path / 'run-off', '--members', out)
  assert elected.code == 0 and 'training: 3 of 3 groups of members done' in elected.err
  ranks, labels = ensemble_votes(
    data_dir, by_hash(K), records.read(out)[0]['config']['capacity'], poisoning.preferences
  )
  proof = certify.run_off_election(ranks.astype(np.float32))
  votes = poisoning.first_choices(ranks)
  check_records(tmp_path / 'run-off', proof, votes, labels, 'symmetric difference')
  refused = run('dpa', '--out', out, '--seed', 1)
  assert refused.code == 2 and 'seed is 0 there and 1 here' in refused.err


def test_finite_aggregation(command, data_dir, tmp_path):
  options = ('--data-dir', data_dir, '--out', tmp_path, '--spread', 2)
  assert command('poison', 'finite-aggregation', *SMALL, *options).code == 0
  config = records.read(tmp_path)[0]['config']
  shifts = poisoning.draw_shifts(2 * K, 2)
  assert config['shifts'] == list(shifts) and config['num_members'] == 2 * K
  votes, labels = ensemble_votes(data_dir, by_hash(2 * K, shifts), config['capacity'])
  proof = certify.finite_aggregation(votes, 10, shifts=shifts)
  check_records(tmp_path, proof, votes, labels, 'symmetric difference')


def test_the_proof_knows_the_shifts():
  """Votes that prove 0, 1 or 3 samples, depending on which members a sample reaches."""
  votes = [0, 1, 2, 0, 0, 1, 0, 0, 2, 2, 2, 1, 0, 0, 0, 2, 0, 0, 1, 0, 2, 0, 0, 1]
  for shifts, radius in (((0, 3, 7, 12), 0), ((0, 1, 2, 3), 1)):
    assert _poisoning.METHODS['finite-aggregation'].prove(votes, 3, shifts) == (0, radius)
  assert _poisoning.METHODS['dpa'].prove(votes, 3, (0,)) == (0, 3)


def test_label_flips(command, data_dir, tmp_path):
  options = ('--data-dir', data_dir, '--out', tmp_path)
  done = command('poison', 'ss-dpa', *SMALL, *options)
  assert done.code == 0, done.err
  capacity = records.read(tmp_path)[0]['config']['capacity']
  of = lambda x, y: poisoning.sorted_unlabelled(x, K)
  votes, labels = ensemble_votes(data_dir, of, capacity)
  check_records(tmp_path, certify.aggregate(votes, 10), votes, labels, 'label flips')


@pytest.fixture(scope='module')
def features(once, data_dir):
  """The directory of a finished training without labels (read only)."""

  def make(out):
    arguments = (
      'train', 'rotnet-mnist', '--dataset', 'digits', '--model', 'digits-cnn', '--augment', 'None',
      '--num-epochs', 2, '--batch-size', 64, '--data-dir', data_dir, '--out', out,
    )  # fmt: skip
    assert cli.main([str(argument) for argument in arguments]) == 0

  return once('rotnet-digits-run', make)


LINEAR = ('--learner', 'linear', '--learner-parameters', 'num_steps', 50)


def test_members_learn_from_features(command, features, data_dir, tmp_path):
  """The library's votes from the run's own features; one flipped label, really learned, moves one member;
  other features refuse."""
  options = (*SMALL, *LINEAR, '--data-dir', data_dir, '--out', tmp_path)
  done = command('poison', 'ss-dpa', *options, '--features', features)
  assert done.code == 0, done.err
  run = train.load_run(features)
  represent = jax.jit(models.bind_representation(models.module_of(run.model_fn), run.variables))
  x, y, _ = data.load('digits', 'train', data_dir=data_dir)
  queries = data.load('digits', 'test', data_dir=data_dir, indices=data.subset(500, evenly=50))
  seen, asked = (np.asarray(represent(data.to_float(each))) for each in (x, queries.images))
  capacity = records.read(tmp_path)[0]['config']['capacity']
  learner, parts = poisoning.linear(10, num_steps=50), poisoning.sorted_unlabelled(x, K)
  votes = lambda y: poisoning.votes(
    poisoning.train_ensemble(jax.random.key(0), learner, seen, y, parts, capacity=capacity, group=GROUP),
    asked, chunk=25,
  )  # fmt: skip
  found = votes(y)
  proof = certify.aggregate(found, 10)
  header = check_records(tmp_path, proof, found, queries.labels, 'label flips')
  weights = records.fingerprint(jax.tree.map(np.asarray, run.variables))
  facts = {'objective': 'rotnet', 'model': 'digits-cnn', 'weights_sha256': weights}
  assert header['config']['features'] == facts
  assert np.mean(proof.label == queries.labels) > 0.8
  moved = []
  for i in range(0, len(y), 150):
    flipped = np.where(np.arange(len(y)) == i, (y + 1) % 10, y)
    changed = np.flatnonzero((votes(flipped) != found).any(axis=0)).tolist()
    assert changed in ([], [n for n, part in enumerate(parts.members) if i in part])
    moved += changed
  assert len(moved) >= 5
  refused = command('poison', 'ss-dpa', *options)
  assert refused.code == 2 and 'features is' in refused.err and 'absent here' in refused.err
  config = json.loads((tmp_path / 'config.json').read_text())
  config['features']['weights_sha256'] = 64 * '0'
  (tmp_path / 'config.json').write_text(json.dumps(config))
  refused = command('poison', 'ss-dpa', *options, '--features', features)
  assert refused.code == 2 and 'features.weights_sha256 is' in refused.err


@pytest.mark.parametrize(
  'method, options, said',
  [
    ('dpa', (), 'void the certificate of dpa: one inserted image may reach every member'),
    ('run-off', (), 'void the certificate of run-off'),
    ('finite-aggregation', ('--spread', 2), 'void the certificate of finite-aggregation'),
    (
      'ss-dpa',
      ('--learner', 'cnn', '--learner-parameters', 'width', 2),
      'sees images, not features',
    ),
    ('ss-dpa', ('--dataset', 'mnist'), 'are of digits, and `dataset` is mnist'),
  ],
)
def test_features_that_void_a_certificate_are_refused(
  command, features, data_dir, tmp_path, method, options, said
):
  common = (*SMALL, *LINEAR, *options, '--data-dir', data_dir, '--out', tmp_path / 'out')
  done = command('poison', method, *common, '--features', features)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_features_of_labels_are_refused_and_features_are_no_classes(
  command, features, trained, data_dir, tmp_path
):
  options = (*SMALL, *LINEAR, '--data-dir', data_dir, '--out', tmp_path / 'out')
  done = command('poison', 'ss-dpa', *options, '--features', trained)
  assert done.code == 2 and 'was trained with labels (objective noise)' in done.err
  assert len(done.err.splitlines()) == 1
  done = command('certify', features, '--sigma', 0.25)
  assert done.code == 2 and 'trained without labels (rotnet), and knows no classes' in done.err


def test_members_of_convolutions(command, data_dir, tmp_path):
  """From images to records: as the library's own ensemble."""
  parameters = {'width': 2, 'num_steps': 10, 'batch': 8, 'crop': 1}
  said = [str(word) for item in parameters.items() for word in item]
  options = ('--learner', 'cnn', '--learner-parameters', *said, '--data-dir', data_dir)
  done = command('poison', 'dpa', *SMALL, *options, '--out', tmp_path)
  assert done.code == 0, done.err
  config = records.read(tmp_path)[0]['config']
  assert config['learner_parameters'] == {**parameters, 'step_size': 0.03}
  learner = poisoning.cnn(10, shape=(8, 8, 1), **parameters)
  votes, labels = ensemble_votes(data_dir, by_hash(K), config['capacity'], learner=learner)
  check_records(tmp_path, certify.aggregate(votes, 10), votes, labels, 'symmetric difference')


@pytest.mark.parametrize(
  'method, options, said',
  [
    ('forest', (), '`method` must be one of dpa, ss-dpa, finite-aggregation, run-off'),
    ('dpa', ('--partitions', 2000), '`partitions` must be at most the 1297 training samples'),
    ('dpa', ('--partitions', 0), '`partitions` must be at least 1'),
    ('dpa', ('--capacity', 0), '`capacity` must be at least 1'),
    ('dpa', ('--spread', 2), '`spread` must be 1 with dpa'),
    ('finite-aggregation', (), '`spread` must be at least 2'),
    ('dpa', ('--hash', 'md5'), '`hash` must be one of pixel-sum, blake2'),
    (
      'dpa',
      ('--learner', 'forest'),
      '`learner` must be one of mlp, nearest-neighbour, linear, cnn, nin',
    ),
    ('dpa', ('--learner-parameters', 'hidden', 8), 'nearest-neighbour has no parameter hidden'),
    ('dpa', ('--evenly', 501), '`evenly`=501 exceeds the 500'),
  ],
)
def test_errors_are_one_line(command, data_dir, tmp_path, method, options, said):
  out = tmp_path / 'out'
  done = command('poison', method, *SMALL, *options, '--data-dir', data_dir, '--out', out)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not out.exists()


def test_a_damaged_group_is_named(command, dpa, data_dir, tmp_path):
  for path in dpa.iterdir():
    if path.suffix in ('.json', '.npz'):
      (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'members-000008.npz').write_bytes(b'PK\3\4 not a whole file')
  done = command('poison', 'dpa', *SMALL, '--data-dir', data_dir, '--out', tmp_path)
  assert done.code == 2 and 'members-000008.npz is damaged' in done.err
