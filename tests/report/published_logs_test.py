"""Published logs give the published tables, digit for digit.

The logs print three significant digits, which is all that the published analysis saw as well.
"""

from pathlib import Path

import numpy as np
import pytest

from certjax import report

LOGS = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'logs'
pytestmark = pytest.mark.skipif(
  not LOGS.is_dir(), reason='the published logs are not beside this checkout (../shared/data/logs)'
)

CIFAR, IMAGENET = 'cifar10/resnet110', 'imagenet/resnet50'


def _cohen(model, noise, sigma, split='test'):
  folder = LOGS / 'cohen_logs' / 'data' / 'certify' / model / f'noise_{noise}' / split
  return report.load(folder / f'sigma_{sigma}')


def _salman(name):
  return report.load(LOGS / 'salman2019' / f'{name}.tsv')


def _printed(text):
  return np.array([float(word) for word in text.split()])


def _check_accuracies(run, step, text, digits=3):
  """The accuracies at 0, step, 2 step, ... printed as in the source."""
  expected = _printed(text)
  radii = step * np.arange(expected.size)
  accuracy = report.certified_accuracy(run.certificate, run.labels, radii)
  np.testing.assert_array_equal(accuracy.round(digits), expected)


# sigma: accuracies, abstention, average certified radius, seconds per image.
COHEN = [
  (CIFAR, '0.12', 500, 0.25, '.814 .586 0', 0.038, 0.2701, 14.1),
  (CIFAR, '0.25', 500, 0.25, '.748 .600 .428 .266 0', 0.086, 0.4289, 16.9),
  (CIFAR, '0.50', 500, 0.25, '.652 .546 .414 .320 .234 .152 .094 .052 0', 0.166, 0.5375, 17.3),
  (CIFAR, '1.00', 500, 0.25, '.472 .392 .340 .278 .216 .174 .140 .118 .100', 0.290, 0.5417, 16.2),
  (IMAGENET, '0.50', 500, 0.5, '.572 .458 .372 .286 0', 0.164, 0.7325, 151.5),
  (IMAGENET, '1.00', 500, 0.5, '.436 .378 .326 .260 .194 .148 .122 .090', 0.296, 0.8752, 151.7),
]


@pytest.mark.parametrize('model, sigma, size, step, accuracies, abstention, acr, seconds', COHEN)
def test_cohen(model, sigma, size, step, accuracies, abstention, acr, seconds):
  run = _cohen(model, sigma, sigma)
  assert run.index.size == size
  _check_accuracies(run, step, accuracies)
  assert report.abstention_rate(run.certificate) == abstention
  assert round(report.average_certified_radius(run.certificate, run.labels), 4) == acr
  assert round(run.seconds.mean(), 1) == seconds


def test_cohen_largest_noise_at_2_25():
  run = _cohen(CIFAR, '1.00', '1.00')
  assert report.certified_accuracy(run.certificate, run.labels, 2.25) == 0.076


def test_cohen_imagenet_427_rows():
  run = _cohen(IMAGENET, '0.25', '0.25')
  assert run.index.size == 427
  _check_accuracies(run, 0.5, '.6674 .4941 0', digits=4)
  assert round(report.abstention_rate(run.certificate), 3) == 0.089
  assert round(report.average_certified_radius(run.certificate, run.labels), 4) == 0.4765
  assert round(run.seconds.mean(), 1) == 150.2


@pytest.mark.parametrize(
  'model, noise, step, accuracies',
  [
    (CIFAR, '0.12', 0.25, '.118 .096 .082 .068 .042'),
    (CIFAR, '0.25', 0.25, '.334 .260 .168 .104 .050'),
    (CIFAR, '1.00', 0.25, '.436 .390 .352 .284 .252 .208 .164 .130'),
    (IMAGENET, '0.25', 0.5, '.008 .004'),
    (IMAGENET, '1.00', 0.5, '.168 .136 .110 .090'),
  ],
)
def test_cohen_trained_with_other_noise(model, noise, step, accuracies):
  _check_accuracies(_cohen(model, noise, '0.50'), step, accuracies)


def test_cohen_training_split():
  run = _cohen(IMAGENET, '0.50', '0.50', split='train')
  assert run.index.size == 513 and set(np.diff(run.index)) == {2500}


@pytest.mark.parametrize('model, table', [(CIFAR, 'cifar10'), (IMAGENET, 'imagenet')])
def test_cohen_published_markdown(model, table):
  """The committed analysis table, two decimals, with a star at the best sigma of each radius."""
  path = LOGS / 'cohen_logs' / 'analysis' / 'markdown' / f'vary_noise_{table}'
  head, _, *rows = path.read_text().splitlines()
  radii = [float(cell.split('=')[1]) for cell in head.split('|') if '=' in cell]
  for row in rows:
    name, *cells = [cell.strip() for cell in row.split('|') if cell.strip()]
    sigma = name.split()[-2]
    run = _cohen(model, sigma, sigma)
    accuracy = report.certified_accuracy(run.certificate, run.labels, radii)
    assert [f'{value:.2f}' for value in accuracy] == [cell.split('<')[0] for cell in cells]


def test_high_probability_row():
  run = _cohen(IMAGENET, '0.50', '0.50')
  (row,) = report.table([run], [0, 0.5, 1.0, 1.5]).rows
  np.testing.assert_array_equal(
    row.high_probability.round(6), [0.562680, 0.448680, 0.362680, 0.276680]
  )


SALMAN = {
  '0.12': ('.8317 .5977', None),
  '0.25': ('.7665 .6116 .4225 .2506', 0.4240),
  '0.50': ('.6568 .5491 .4279 .3245 .2197 .1412 .0826 .0394', 0.5251),
  '1.00': ('.4715 .4094 .3377 .2768 .2213 .1722 .1328 .0967 .0663 .0431', 0.5105),
}


@pytest.mark.parametrize('sigma', SALMAN)
def test_salman_full_test_set(sigma):
  accuracies, acr = SALMAN[sigma]
  run = _salman(f'cifar10_cohen_sigma_{sigma}')
  np.testing.assert_array_equal(run.index, np.arange(10_000))
  _check_accuracies(run, 0.25, accuracies, digits=4)
  if acr is not None:
    assert round(report.average_certified_radius(run.certificate, run.labels), 4) == acr


def test_salman_smoothadv():
  run = _salman('cifar10_smoothadv_sigma_0.25')
  _check_accuracies(run, 0.25, '.7475 .6669 .5760 .4778', digits=4)
  assert round(report.average_certified_radius(run.certificate, run.labels), 4) == 0.5512


def test_salman_best_sigma_at_each_radius():
  runs = [_salman(f'cifar10_cohen_sigma_{sigma}') for sigma in SALMAN]
  best = np.max([row.accuracy for row in report.table(runs, np.arange(11) / 8).rows], axis=0)
  published = '.8317 .7277 .6116 .5221 .4279 .376 .3245 .2692 .2213 .1955 .1722'
  np.testing.assert_array_equal(best.round(4), _printed(published))


@pytest.mark.parametrize(
  'num_samples, correct, wrong, abstained, seconds, last_digit',
  [
    (100, 0.658, 0.249, 0.093, 0.15, 0.01),
    (1_000, 0.680, 0.289, 0.031, 1.48, 0.01),
    (10_000, 0.687, 0.302, 0.011, 14.9, 0.1),
    (100_000, 0.689, 0.307, 0.004, 150, 1),
  ],
)
def test_cohen_predictions(num_samples, correct, wrong, abstained, seconds, last_digit):
  """The published analysis reads the first 450 of the 500 images; times are medians."""
  folder = LOGS / 'cohen_logs' / 'data' / 'predict' / IMAGENET / 'noise_0.25' / 'test'
  run = report.load(folder / f'N_{num_samples}')
  assert run.index.size == 500
  label, labels = run.certificate.label[:450], run.labels[:450]
  rates = [label == labels, (label != labels) & (label >= 0), label < 0]
  assert [round(float(np.mean(rate)), 3) for rate in rates] == [correct, wrong, abstained]
  assert np.median(run.seconds[:450]) == pytest.approx(seconds, abs=last_digit / 2)


@pytest.mark.parametrize('name', ['cifar10_cohen_sigma_0.25', 'cifar10_smoothadv_sigma_0.25'])
def test_a_published_log_is_written_back_byte_for_byte(tmp_path, name):
  report.write_tsv(tmp_path / 'again.tsv', _salman(name))
  original = (LOGS / 'salman2019' / f'{name}.tsv').read_text()
  assert (tmp_path / 'again.tsv').read_text() == original
