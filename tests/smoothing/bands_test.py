"""Bands and blocks: what a view shows, what it votes for, and whole images under every patch."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certjax import certify, data, models, smoothing, testing

SHAPE = (4, 5, 2)
X = np.random.default_rng(0).uniform(0.1, 0.9, SHAPE).astype(np.float32)
KINDS = {
  'columns': (smoothing.bands(width=2, shape=SHAPE), 5, (4, 2)),
  'rows': (smoothing.bands(width=3, shape=SHAPE, axis='row'), 4, (3, 5)),
  'blocks': (smoothing.blocks(size=3, shape=SHAPE), 20, (3, 3)),
}
LOGITS = np.log(
  [[0.7, 0.2, 0.1], [0.35, 0.35, 0.3], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8], [np.nan, 0.5, 0.5]]
).astype(np.float32)


@functools.cache
def all_views(name):
  views = KINDS[name][0]
  return np.asarray(jax.jit(jax.vmap(views.view, (None, 0)))(X, jnp.arange(views.num_views)))


@pytest.mark.parametrize('name', KINDS)
def test_a_view_shows_its_window_and_hides_the_rest(name):
  """Every pixel of every view, by a loop over the pixels of the window, around the ends."""
  views, number, (height, width) = KINDS[name]
  starts = [(i, j) for i in range(SHAPE[0]) for j in range(SHAPE[1])]
  starts = [(i, j) for i, j in starts if (height < 4 or i == 0) and (width < 5 or j == 0)]
  assert views.num_views == number == len(starts) and views.unit == 'patch side'
  for view, (row, column) in zip(all_views(name), starts, strict=True):
    expected = np.zeros((4, 5, 4), np.float32)
    for i, j in itertools.product(range(height), range(width)):
      at = (row + i) % 4, (column + j) % 5
      expected[at] = [*X[at], *(1 - X[at])]
    np.testing.assert_array_equal(view, expected)


def test_rows_are_columns_of_the_transposed_image():
  columns = smoothing.bands(width=3, shape=(5, 4, 2))
  x = X.transpose(1, 0, 2)
  seen = jax.jit(jax.vmap(columns.view, (None, 0)))(x, jnp.arange(4))
  np.testing.assert_array_equal(np.asarray(seen).transpose(0, 2, 1, 3), all_views('rows'))


def test_sample_draws_every_view_evenly():
  """1,000 draws of 5 views: a frequency off by 5 standard errors has probability below 1e-5."""
  sample = jax.jit(jax.vmap(KINDS['columns'][0].sample, (0, None)))
  drawn = np.asarray(sample(jax.random.split(jax.random.key(0), 1000), X))
  same = np.all(drawn[:, None] == all_views('columns'), axis=(2, 3, 4))
  assert (same.sum(axis=1) == 1).all()
  assert (np.abs(same.sum(axis=0) - 200) <= 5 * np.sqrt(1000 * 4 / 25)).all()


@pytest.mark.parametrize(
  'options, expected',
  [
    ({}, ['110', '111', '111', '001', '000']),  # The default is 0.2, and reached by 0.2.
    ({'theta': 0.32}, ['100', '110', '100', '001', '000']),
    ({'theta': 0.75}, ['000', '000', '000', '001', '000']),
    ({'top_one': True}, ['100', '100', '100', '001', '000']),
  ],
)
def test_votes(options, expected):
  """Several classes, one, or none; NaN for none; the lowest of equals."""
  theta = options.get('theta', 0.2)
  vote = smoothing.bands(width=2, shape=SHAPE, **options).vote
  logits = LOGITS + np.float32(1e-6) if theta == 0.2 else LOGITS
  votes = np.asarray(jax.jit(vote)(logits))
  nearly = np.abs(np.exp(np.nan_to_num(LOGITS)) - theta) < 1e-6  # 0.2 itself may be rounded.
  wanted = np.array([[c == '1' for c in row] for row in expected])
  assert ((votes == wanted) | nearly).all() and votes.dtype == bool


def test_a_vote_is_reached_by_equality():
  views = smoothing.bands(width=2, shape=SHAPE, theta=0.25)
  assert np.asarray(views.vote(jnp.zeros((1, 4)))).all()


@pytest.mark.parametrize('options', [{'theta': 0.3}, {'theta': 0.97}, {'top_one': True}])
def test_votes_without_doubt_stay(options):
  """Logits moved by less than slack / 2, up and down each: a vote that changes was in doubt."""
  rng, slack = np.random.default_rng(1), np.float32(0.3)
  views = smoothing.bands(width=2, shape=SHAPE, **options)
  vote = jax.jit(views.vote)
  logits = 2 * rng.normal(size=(20_000, 3)).astype(np.float32)
  logits[0], logits[1] = np.nan, [9, 0, 0]
  doubt = np.asarray(jax.jit(views.doubt)(logits, slack))
  assert doubt[0].all() and not doubt[1].any()
  changed = np.zeros_like(doubt)
  for signs in itertools.product((-1, 1), repeat=3):
    moved = logits + 0.4999 * slack * np.array(signs, np.float32)
    changed |= np.asarray(vote(moved)) != np.asarray(vote(logits))
  assert not (changed & ~doubt).any()
  # And a doubt is real: it takes about this much and no less.
  assert 100 < changed.sum() and doubt.sum() < 1.01 * changed.sum() + 10


GRID = np.array([0, 0.5, 1], np.float32)
SMALL = (2, 6, 1)
STARTS = np.random.default_rng(3).choice(GRID, (6, *SMALL), p=[0.6, 0.2, 0.2])


def network(weights, x):
  """A random function of what a view shows; it loves some pictures so much that it is not a number."""
  first, second, bias = weights
  hidden = jnp.sin(jnp.einsum('bi,ih->bh', x.reshape(len(x), -1), first, precision='highest'))
  logits = jnp.einsum('bh,hk->bk', hidden, second, precision='highest') + bias
  return jnp.where(logits[:, :1] > 5, jnp.nan, logits)


def model(seed, num_classes=3):
  rng = np.random.default_rng(seed)
  weights = (
    rng.normal(size=(24, 8)),
    rng.normal(size=(8, num_classes)),
    rng.normal(size=(1, num_classes)),
  )
  return jax.tree_util.Partial(network, jax.tree.map(np.float32, weights))


@functools.cache
def patched(side):
  """[B, N, H, W, C]: each image with every square of that side, anywhere, filled in every way."""
  found = []
  fillings = np.array(list(itertools.product(GRID, repeat=side * side))).reshape(-1, side, side, 1)
  for row, column in itertools.product(range(3 - side), range(7 - side)):
    images = np.repeat(STARTS[:, None], len(fillings), axis=1)
    images[:, :, row : row + side, column : column + side] = fillings
    found.append(images)
  return np.concatenate(found, axis=1)


@jax.jit
def smoothed(model_fn, views_fn, vote, numbers, x):
  """(labels, votes of each class) of images, without the library's engine; -1 where nobody votes."""
  seen = jax.vmap(jax.vmap(views_fn, (None, 0)), (0, None))(x, numbers)
  votes = vote(model_fn(seen.reshape(-1, *seen.shape[2:])))
  counts = votes.reshape(*seen.shape[:2], -1).astype(jnp.int32).sum(axis=1)
  return jnp.where(counts.sum(axis=1) == 0, -1, jnp.argmax(counts, axis=1)), counts


ATTACKED = {
  'bands': lambda **rule: smoothing.bands(width=1, shape=SMALL, theta=0.4, **rule),
  'top one': lambda **rule: smoothing.bands(width=1, shape=SMALL, top_one=True, **rule),
  'blocks': lambda **rule: smoothing.blocks(size=1, shape=SMALL, theta=0.35, **rule),
  'strided masks': lambda **rule: smoothing.bands(
    width=1, shape=SMALL, top_one=True, null='mask', stride=2, **rule
  ),
}


@pytest.mark.parametrize('name', ATTACKED)
def test_no_patch_contradicts_a_certificate(name):
  """All places, all fillings with three grey levels, 6 images, 4 networks: no exception at all."""
  views, coarse = ATTACKED[name](), ATTACKED[name](per_location=False)
  x = np.concatenate([STARTS[:, None], patched(1), patched(2)], axis=1)
  sides = np.r_[0, np.full(patched(1).shape[1], 1), np.full(patched(2).shape[1], 2)]
  numbers = np.arange(views.num_views)
  kept = counted = broken = 0
  for seed in range(4):
    proof = certify.enumerated(model(seed), views, STARTS, chunk=64)
    testing.check_certificate(proof, 3)
    label, counts = smoothed(model(seed), views.view, views.vote, numbers, x.reshape(-1, *SMALL))
    label = np.asarray(label).reshape(x.shape[:2])
    np.testing.assert_array_equal(label[:, 0], proof.label)
    by_counts = coarse.decide(np.asarray(counts).reshape(*x.shape[:2], -1)[:, 0])
    assert (by_counts.radius <= proof.radius).all() and (by_counts.label == proof.label).all()
    changed = label != label[:, :1]
    assert not (changed & (sides <= proof.radius[:, None])).any()
    kept, broken = kept + np.sum(proof.radius > 0), broken + np.sum(changed.any(axis=1))
    counted += np.sum(by_counts.radius > 0)
  assert kept > 3 and kept >= counted and broken > 3


@pytest.mark.parametrize('options', [{'theta': 0.3}, {'top_one': True, 'per_location': False}])
def test_slack_certificates_hold_for_programs_that_differ_by_less(options):
  slack = 0.2
  plain_total = total = moved = 0
  views = smoothing.bands(width=1, shape=SMALL, **options)
  for seed in range(4):
    base = model(seed)
    plain = certify.enumerated(base, views, STARTS, chunk=64)
    proof = certify.enumerated(base, views, STARTS, chunk=64, slack=slack)
    assert (proof.radius <= plain.radius).all()
    assert (proof.label == plain.label)[proof.label >= 0].all()
    nudge = jax.tree_util.Partial(other, base, model(seed + 50), np.float32(0.499 * slack))
    elsewhere = certify.enumerated(nudge, views, STARTS, chunk=64)
    assert (elsewhere.label == proof.label)[proof.label >= 0].all()
    assert (elsewhere.radius >= proof.radius).all()
    plain_total, total = plain_total + plain.radius.sum(), total + proof.radius.sum()
    moved += np.sum(elsewhere.radius != plain.radius)
  assert 0 < total < plain_total and moved > 0


def other(base, nudge, size, x):
  """Another program: each logit is moved by `size`, up or down."""
  return base(x) + size * jnp.sign(jnp.nan_to_num(nudge(x)))


def test_no_view_without_a_number_no_certificate():
  nothing = jax.tree_util.Partial(lambda x: jnp.full((len(x), 3), jnp.nan))
  for rule in ({}, {'per_location': False}):
    views = smoothing.bands(width=1, shape=SMALL, **rule)
    for slack in (None, 0.1):
      proof = certify.enumerated(nothing, views, STARTS[:2], chunk=64, slack=slack)
      assert (proof.label == certify.ABSTAIN).all() and (proof.radius == 0).all()


@pytest.mark.parametrize(
  'make, options, said',
  [
    ('bands', {'width': 5}, r'`width` must be smaller than the image, which has 5 pixels there, got 5'),
    ('bands', {'width': 4, 'axis': 'row'}, '`width` must be smaller .* 4 pixels'),
    ('blocks', {'size': 4}, '`size` must be smaller than the image'),
    ('bands', {'width': 0}, '`width` must be a whole number of pixels, 1 or more, got 0'),
    ('bands', {'width': 1.5}, 'a whole number of pixels'),
    ('bands', {'width': float('nan')}, 'a whole number of pixels'),
    ('bands', {'width': 2, 'patch': 5}, r'`patch` .* must lie in the image: 1 \.\. 4, got 5'),
    ('blocks', {'size': 2, 'patch': 0}, r'1 \.\. 4, got 0'),
    ('bands', {'width': 2, 'theta': 0.0}, '`theta` is the softmax that a vote needs'),
    ('bands', {'width': 2, 'theta': float('nan')}, 'between 0 and 1, got nan'),
    ('bands', {'width': 2, 'theta': 0.2, 'top_one': True}, 'no meaning with `top_one`'),
    ('bands', {'width': 2, 'axis': 'diagonal'}, '`axis` must be one of column, row'),
    ('bands', {'width': 2, 'null': 'mean'}, "`null` must be one of multichannel, mask, got 'mean'"),
    ('bands', {'width': 2, 'stride': 5}, r'`stride` must be a whole number .* 1 \.\. 4, got 5'),
    ('bands', {'width': 2, 'axis': 'row', 'stride': 4}, r'1 \.\. 3, got 4'),
    ('blocks', {'size': 2, 'stride': 0}, r'1 \.\. 3, got 0'),
    ('blocks', {'size': 2, 'stride': 1.5}, 'got 1.5'),
    ('blocks', {'size': 2, 'stride': 'all'}, 'got all'),
    ('bands', {'width': 2, 'shape': (4, 5)}, r'\(H, W, C\), got shape=\(4, 5\)'),
    ('multi_bands', {'width': 2, 'keep': 1}, '`width` must divide the 5 columns of the image, got 2'),
    ('multi_bands', {'width': 1, 'keep': 5}, '`keep` must be fewer than the 5 bands'),
    ('multi_bands', {'width': 1, 'keep': 20, 'shape': (4, 40, 1)}, 'more than 1048576'),
  ],
)  # fmt: skip
def test_bad_arguments(make, options, said):
  with pytest.raises(ValueError, match=said) as error:
    getattr(smoothing, make)(**{'shape': SHAPE, **options})
  assert '\n' not in str(error.value)


STRIDED = {  # Sizes of a window, and where windows start.
  'columns': (smoothing.bands(width=2, shape=SHAPE, null='mask', stride=2), (4, 2), [0], [0, 2, 4]),
  'rows': (smoothing.bands(width=1, shape=SHAPE, axis='row', null='mask'), (1, 5), range(4), [0]),
  'blocks': (smoothing.blocks(size=3, shape=SHAPE, null='mask', stride=3), (3, 3), [0, 3], [0, 3]),
}


@pytest.mark.parametrize('name', STRIDED)
def test_a_view_with_a_mask_shows_its_window_and_says_so(name):
  """Every pixel of every view, for windows that start at every second or third place."""
  views, (height, width), rows, columns = STRIDED[name]
  seen = np.asarray(jax.jit(jax.vmap(views.view, (None, 0)))(X, jnp.arange(views.num_views)))
  for view, (row, column) in zip(seen, itertools.product(rows, columns), strict=True):
    expected = np.zeros((4, 5, 3), np.float32)
    for i, j in itertools.product(range(height), range(width)):
      at = (row + i) % 4, (column + j) % 5
      expected[at] = [*X[at], 1]
    np.testing.assert_array_equal(view, expected)


def most_met(length, width, stride, side):
  """By sets of pixels, at every place of a patch inside the image."""
  bands = [{(start + i) % length for i in range(width)} for start in range(0, length, stride)]
  patches = [set(range(first, first + side)) for first in range(length - side + 1)]
  return max(sum(not band.isdisjoint(patch) for band in bands) for patch in patches)


def test_strided_windows_that_a_patch_meets():
  """All images of up to 8 columns, all widths, strides and sides; blocks of the square image as well."""
  gaps = 0
  for length in range(2, 9):
    for width, stride in itertools.product(range(1, length), repeat=2):
      options = {'shape': (length, length, 1), 'stride': stride, 'per_location': False}
      wanted = [most_met(length, width, stride, side) for side in range(1, length + 1)]
      bands = smoothing.bands(width=width, **options)
      assert bands.decide.keywords['affected'] == wanted
      blocks = smoothing.blocks(size=width, **options)
      assert blocks.decide.keywords['affected'] == [number**2 for number in wanted]
      usual = [min(-(-(m + width - 1) // stride), bands.num_views) for m in range(1, length + 1)]
      gaps += wanted != usual
      assert wanted == usual or length % stride
  assert gaps > 20  # Where the published number is too small.


def test_windows_met_of_the_reference():
  """224 columns, bands of 19 every 10, a patch of 32: 6 of 23, where ceil(50 / 10) = 5."""
  make = functools.partial(smoothing.bands, per_location=False)
  views = make(width=19, stride=10, shape=(224, 224, 3), patch=32)
  assert views.num_views == 23 and views.decide.keywords['affected'][-1] == 6
  assert [views.decide(counts).radius == 32 for counts in ([12, 0], [11, 0])] == [True, False]
  affected = [
    make(width=4, stride=stride, shape=(32, 32, 3), patch=5).decide.keywords['affected'][-1]
    for stride in (1, 4)
  ]
  assert affected == [8, 2]
  dense = make(width=19, shape=(224, 224, 3), patch=32)
  assert dense.decide.keywords['affected'][-1] == 50


@pytest.mark.parametrize(
  'shape, make',
  [
    ((3, 10, 1), functools.partial(smoothing.bands, width=2, stride=3)),
    ((7, 3, 1), functools.partial(smoothing.bands, width=3, stride=2, axis='row')),
    ((4, 5, 1), functools.partial(smoothing.blocks, size=1, stride=2)),
    ((5, 5, 1), functools.partial(smoothing.blocks, size=2, stride=3)),
  ],
)
def test_no_rewriting_of_strided_votes_turns_a_certified_label(shape, make):
  """3,000 tables: the rule of places certifies exactly what no rewriting turns; that of counts, no more."""
  rng, views = np.random.default_rng(0), make(shape=shape)
  rates = rng.dirichlet(np.full(3, 0.2), 3000) * rng.choice([0.6, 1, 1.3], (3000, 1))
  votes = rng.random((3000, views.num_views, 3)) < rates[:, None]
  votes[:40] = np.arange(3) == rng.integers(0, 3, (40, 1, 1))
  proof, label = views.decide(votes), np.argmax(votes.sum(axis=1), axis=1)
  coarse = make(shape=shape, per_location=False).decide(votes.sum(axis=1))
  testing.check_certificate(proof, 3)
  voted = votes.any(axis=(1, 2))
  np.testing.assert_array_equal(proof.label, np.where(voted, label, certify.ABSTAIN))
  see = jax.jit(jax.vmap(views.view, (None, 0)))
  clean = np.asarray(see(jnp.zeros(shape), jnp.arange(views.num_views)))
  for side in range(1, min(shape[:2]) + 1):
    unsafe = np.zeros(3000, bool)
    for row, column in itertools.product(*(range(n - side + 1) for n in shape[:2])):
      x = np.zeros(shape, np.float32)
      x[row : row + side, column : column + side] = 1
      met = (np.asarray(see(x, jnp.arange(views.num_views))) != clean).any(axis=(1, 2, 3))
      left = votes[:, ~met].sum(axis=1)
      for rival in range(3):  # Nothing is worse than that all of them vote for one class alone.
        after = np.argmax(left + met.sum() * (np.arange(3) == rival), axis=1)
        unsafe |= after != label
    np.testing.assert_array_equal(proof.radius[voted] >= side, ~unsafe[voted])
  assert (coarse.radius <= proof.radius).all() and (coarse.label == proof.label).all()
  assert (coarse.radius > 0).any()


@pytest.mark.parametrize('width, keep, columns', [(2, 2, 8), (1, 3, 6), (3, 1, 12)])
def test_multi_bands_that_a_patch_changes(width, keep, columns):
  """By comparing pictures: no place of a patch changes more views than the rule says, and some place as many."""
  shape = (6, columns, 1)
  views = smoothing.multi_bands(width=width, keep=keep, shape=shape)
  see = jax.jit(jax.vmap(views.view, (None, 0)))
  numbers = jnp.arange(views.num_views)
  clean = np.asarray(see(jnp.zeros(shape), numbers))
  assert len(np.unique(clean, axis=0)) == views.num_views
  assert (clean[..., 1].sum(axis=(1, 2)) == 6 * width * keep).all() and not clean[..., 0].any()
  most = np.zeros(6, int)
  for side, place in ((m, p) for m in range(1, 7) for p in range(columns - m + 1)):
    x = np.zeros(shape, np.float32)
    x[:side, place : place + side] = 1
    changed = (np.asarray(see(x, numbers)) != clean).any(axis=(1, 2, 3)).sum()
    most[side - 1] = max(most[side - 1], changed)
  assert views.decide.keywords['affected'] == most.tolist()


def test_multi_bands_of_the_reference():
  """Two of 14 bands: a patch of 5 touches 3 bands and 36 of 91 views."""
  views = smoothing.multi_bands(width=2, keep=2, shape=(28, 28, 1), patch=5)
  assert views.num_views == 91 and views.decide.keywords['affected'][-1] == 36
  radii = [views.decide(counts).radius for counts in ([82, 10], [81, 10], [10, 82], [10, 83])]
  assert [radius == 5 for radius in radii] == [True, False, False, True]


def first_images(number, data_dir):
  """The first of MNIST's test images in their original order: TFDS sorts records by a hash of the number."""
  hasher = pytest.importorskip('tensorflow_datasets.core.hashing').Hasher('test')
  order = sorted(range(10_000), key=hasher.hash_key)
  place = np.argsort(order)[:number]
  return data.take(data.stream(data.source('mnist', 'test', data_dir), place), slice(None))


@pytest.mark.parametrize(
  'make, side, certified, accuracy',
  [
    (functools.partial(smoothing.bands, width=2), 5, 52, 0.96),
    (functools.partial(smoothing.blocks, size=5), 1, 22, 0.23),
  ],
)
def test_published_network_certifies_what_its_authors_count(
  shared, make, side, certified, accuracy
):
  """ART's own test: of the first 128 test images 52 at 5x5 by bands of 2, 22 at 1x1 by blocks of 5."""
  images = first_images(128, shared / 'tensorflow_datasets')
  assert images.labels[:12].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6]
  weights = shared / 'weights' / 'art_derandomized_mnist.npz'
  variables = models.load_weights(weights, 'derandomized-cnn', shape=(28, 28, 2))
  model_fn = models.bind(models.build('derandomized-cnn', num_classes=10), variables)
  views = make(shape=(28, 28, 1), theta=0.3, per_location=False)
  proof = certify.enumerated(model_fn, views, data.to_float(images.images))
  assert np.sum(proof.radius >= side) == certified
  assert np.mean(proof.label == images.labels) == pytest.approx(accuracy, abs=0.01)
