"""Networks of local features over a data set: closed forms, patches that find nothing, records that stand alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from certjax import certify, configs, data, evaluate, models, prove

SHAPE = (6, 6, 1)
RNG = np.random.default_rng(0)
# From flat images of every grey to noisy ones.
LEVEL, NOISE = (
  np.linspace(0, 1, 16)[:, None, None, None],
  np.linspace(0, 0.6, 16)[::-1, None, None, None],
)
X = np.clip(LEVEL + NOISE * RNG.uniform(-1, 1, (16, *SHAPE)), 0, 1)
X = np.rint(255 * X).astype(np.uint8)
IMAGES = data.Images(X, np.arange(16, dtype=np.int32) % 2, np.arange(16) * 3)
PIXELS = data.to_float(X)


class Brightness(nn.Module):
  """Every cell sees 2 x 2 pixels, and says how bright (class 1) and how dark (class 0) they are."""

  receptive_field, stride = 2, 1

  def __call__(self, x, train=False):
    return jnp.mean(self.local_logits(x), axis=(1, 2))

  def local_logits(self, x):
    seen = (x[:, 1:, 1:] + x[:, :-1, 1:] + x[:, 1:, :-1] + x[:, :-1, :-1]) / 4
    return jnp.concatenate([1 - seen, seen], axis=-1)


BRIGHT = models.bind(Brightness(), {})


def network(**options):
  return evaluate.masked_network(BRIGHT, certify.masked(**options), shape=SHAPE)


def lines(made, images=IMAGES, **options):
  return [record for record, _ in evaluate.masked_records(made, images, **options)]


def places(side):
  return itertools.product(range(SHAPE[0] - side + 1), repeat=2)


def test_windows_and_constants():
  made = network(patch=3)
  assert made.windows == ((2, 2), (3, 3), (4, 4)) and made.num_classes == 2
  assert made.constants == {'window': [4, 4]}


@pytest.mark.parametrize('aggregation', ['masking', 'clipping'])
def test_no_patch_turns_a_certified_label(aggregation):
  """All places, black, white, and noise: what is certified stays; some of what is not does turn."""
  module = Brightness() if aggregation == 'masking' else Sharp()
  method = certify.masked(patch=2, aggregation=aggregation)
  made = evaluate.masked_network(models.bind(module, {}), method, shape=SHAPE)
  proof = evaluate.masked_certificate(made, PIXELS)
  certified, turned = proof.radius >= 2, np.zeros(16, bool)
  for row, column in places(2):
    for patch in (0.0, 1.0, RNG.uniform(0, 1, (16, 2, 2, 1))):
      x_adv = PIXELS.copy()
      x_adv[:, row : row + 2, column : column + 2] = patch
      turned |= evaluate.masked_certificate(made, x_adv).label != proof.label
  assert 2 < certified.sum() < 16 and turned.any() and not (certified & turned).any()


class Sharp(Brightness):
  """The same in the range where clipping bends."""

  def local_logits(self, x):
    return 20 + 60 * (super().local_logits(x) - 0.5)


def test_labels_are_those_of_the_rule():
  """Sums of brightness in float64, less the best window: 3 x 3 cells of a patch of 2 pixels."""
  x = PIXELS[..., 0].astype(np.float64)
  seen = (x[:, 1:, 1:] + x[:, :-1, 1:] + x[:, 1:, :-1] + x[:, :-1, :-1]) / 4
  scores = []
  for u in (1 - seen, seen):
    windows = [u[:, i : i + 3, j : j + 3].sum(axis=(1, 2)) for i in range(3) for j in range(3)]
    scores.append(u.sum(axis=(1, 2)) - np.max(windows, axis=0))
  gap = np.abs(scores[0] - scores[1]) > 1e-4
  assert gap.sum() > 10
  label = evaluate.masked_certificate(network(patch=2), PIXELS).label
  np.testing.assert_array_equal(label[gap], np.argmax(scores, axis=0)[gap])


def test_records_stand_alone():
  """In order, and the same alone, in a shard, and through `prove`."""
  made = network(patch=2)
  found = lines(made, slack=0.2)
  assert [list(line) for line in found] == [
    ['index', 'label', 'slack_predict', 'slack_radius', 'predict', 'radius']
  ] * 16
  assert [line['index'] for line in found] == (np.arange(16) * 3).tolist()
  part = data.Images(X[3::4], IMAGES.labels[3::4], IMAGES.index[3::4])
  assert lines(made, part, slack=0.2) == found[3::4]
  plain = lines(made)
  assert plain == [{k: v for k, v in line.items() if not k.startswith('slack')} for line in found]
  proof = evaluate.masked_certificate(made, PIXELS)
  assert [line['radius'] for line in plain] == proof.radius.tolist()
  assert {0.0, 2.0} <= set(proof.radius.tolist())
  assert any(line['slack_radius'] < line['radius'] for line in found)
  run = prove(BRIGHT, X, IMAGES.labels, method='patchguard', patch=2)
  np.testing.assert_array_equal(run.certificate.radius, proof.radius)
  np.testing.assert_array_equal(run.certificate.label, proof.label)
  assert run.header == {'norm': 'patch', 'unit': 'patch side', 'quantifier': 'exact'}


def test_it_stops_when_told():
  asked = []
  stop = lambda: asked.append(1) or len(asked) > 2
  assert len(list(evaluate.masked_records(network(patch=2), IMAGES, stop=stop))) == 2


def test_one_trace_for_all_images_and_weights():
  traces = []

  class Counted(nn.Module):
    receptive_field, stride = 1, 1

    @nn.compact
    def local_logits(self, x):
      traces.append(1)
      return nn.Dense(2)(x)

    __call__ = local_logits

  module = Counted()
  for seed in (0, 1):
    variables = module.init(jax.random.key(seed), PIXELS[:1])
    made = evaluate.masked_network(
      models.bind(module, variables), certify.masked(patch=2), shape=SHAPE
    )
    before = len(traces)
    evaluate.masked_certificate(made, PIXELS)
    assert len(traces) - before == (seed == 0)


def test_not_a_number_abstains():
  x = PIXELS[:2].copy()
  x[0, 3, 3] = np.nan
  assert evaluate.masked_certificate(network(patch=1), x).label[0] == certify.ABSTAIN


@pytest.mark.parametrize(
  'options, said',
  [
    ({'patch': 0}, '`patch` must be a whole number of pixels, 1 or more, got 0'),
    ({'patch': 2.5}, '`patch` must be a whole number'),
    ({'patch': 7, 'shape': SHAPE}, r'`patch` must be a whole number of pixels, 1 \.\. 6, got 7'),
    ({'aggregation': 'median'}, "`aggregation` must be one of masking, clipping; got 'median'"),
    ({'threshold': 1.0}, r'`threshold` must lie in \[0, 1\), got 1.0'),
    ({'aggregation': 'clipping', 'threshold': 0.2}, '`threshold` is of masking'),
  ],
)
def test_bad_options(options, said):
  with pytest.raises(ValueError, match=said):
    certify.masked(**options)


def test_what_does_not_fit_the_network():
  with pytest.raises(ValueError, match='side 5 meets all 5 x 5 cells .* `patch` may be 3 at most'):
    network(patch=5)
  module = models.build('digits-cnn', num_classes=2)
  for model_fn, what in ((models.bind(module, {}), 'DigitsCNN'), (abs, 'this function')):
    with pytest.raises(
      ValueError, match=f'needs a network of small receptive field.*{what} is none'
    ):
      evaluate.masked_network(model_fn, certify.masked(), shape=SHAPE)
  small = models.build('bagnet-small', num_classes=2)
  shapes = jax.eval_shape(small.init, jax.random.key(0), jnp.zeros((1, 9, 9, 1)))
  variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
  for shape, said in (((6, 6, 1), 'sees nothing of images'), ((12, 12, 3), 'does not take images')):
    with pytest.raises(ValueError, match=said):
      evaluate.masked_network(models.bind(small, variables), certify.masked(patch=1), shape=shape)
  with pytest.raises(
    ValueError, match='masked has no parameter width; it takes patch, aggregation'
  ):
    configs.build_smoothing('patchguard', shape=SHAPE, width=2)
