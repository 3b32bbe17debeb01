"""How many pixels must an adversary change on MNIST? The lecture's table of medians.

    python benchmarks/sparse_attacks.py --data-dir DIR --ablation RUN

Pointwise (Schott et al. 2019) from decisions alone on 20 evenly spaced test images, 3 repeats of 20 noises, the
sparsest misclassified point of each image; an image that is misclassified as it is counts 0. The classifiers:

- the preset mnist without noise, 5 epochs (CNN); the same behind a threshold at 0.5 (binarized CNN);
- the nearest of the 60,000 training images;
- the preset mnist trained against PGD, L_inf 0.3, 10 steps, eps grown over 2 of 5 epochs;
- randomized ablation, RUN (the preset ablation-mnist-quick, k = 45): 500 votes a question, where a wrong class
  or an abstention (two-sided binomial test of the top two, alpha = 0.05) is what the adversary wants. The votes
  of a point are the same whenever it is asked, so the search bends to their chance. Therefore 10,000 new votes
  judge the points it went through, from many changed pixels to few by bisection: the median is of the
  sparsest that they confirm, and another 10,000 say how many of these hold.

Where a question costs little (the three CNNs) the published protocol is run too: 10 repeats of 1,000 noises.
Published medians are of that protocol on all images, with 10,000 votes a question. Not run: the two
analysis-by-synthesis models (published only). The settings stood before the run; that of the published
protocol was added after the first rows, which stay, and the bisection after a run in which 1 of 20 of the
search's own end points held. Every finished row lies in OUT and is not made again.
"""

import argparse
import functools
import json
import pathlib

import common
import jax
import numpy as np

NUM_IMAGES = 20
REDUCED = {'num_repeats': 3, 'num_noises': 20}
FULL = {'num_repeats': 10, 'num_noises': 1000}
EPOCHS, EPS, WARMUP = 5, 0.3, 2
VOTES, AGAIN, ALPHA, KEEP = 500, 10_000, 0.05, 45
CHUNK = 250  # A quarter less time than the default for so small a network.
PUBLISHED = {  # Levine & Feizi 2020: accuracy in percent, median of the adversarial magnitudes.
  'CNN': (99.1, 9.0), 'binarized CNN': (98.5, 11.0), 'nearest neighbour': (96.9, 10.0),
  'L_inf trained CNN': (98.8, 4.0), 'randomized ablation': (96.7, 31.0),
}  # fmt: skip
NOT_RUN = {'ABS': (99.0, 22.0), 'binarized ABS': (99.0, 16.5)}  # Schott et al. 2019.


def trained(out, where, *options):
  """The model of the preset mnist with other options."""
  from certjax import train

  run = ('train', 'mnist', '--method', 'none', '--num-epochs', EPOCHS, '--out', out)
  common.command(*run, *options, *where)
  return train.load_run(out).model_fn


def classifiers(out, where, data_dir):
  """name -> what makes the model_fn, of those that are functions of the image."""
  from certjax import data, defenses, models

  def cnn():
    return trained(out / 'cnn', where, '--objective', 'clean')

  def neighbours():
    known = data.load('mnist', 'train', data_dir=data_dir)
    return models.nearest_neighbour(known.images, known.labels, num_classes=10)

  def linf():
    against = ('--objective', 'adversarial', '--objective-parameters', 'eps', EPS)
    return trained(out / 'linf', where, *against, '--objective-warmup-epochs', WARMUP)

  return {
    'CNN': cnn,
    'binarized CNN': lambda: defenses.binarize(cnn()),
    'nearest neighbour': neighbours,
    'L_inf trained CNN': linf,
  }


def of_model(name, make, x, y):
  """Pointwise against the largest logit, by both protocols where a question costs little."""
  from certjax import attacks

  model_fn = make()
  predict = jax.jit(lambda model_fn, x: model_fn(x).argmax(axis=1))
  wrong = lambda x: np.asarray(predict(model_fn, x)) != y
  made = row(name, attacks.pointwise_search(jax.random.key(0), wrong, x, **REDUCED))
  if 'CNN' in name:
    found = attacks.pointwise_search(jax.random.key(0), wrong, x, **FULL)
    made |= {'published protocol': median(found), 'its pixels': pixels(found)}
  return made


def of_ablation(run, x, y):
  """Pointwise against PREDICT, and the sparsest of its points that new votes confirm."""
  from certjax import evaluate, smoothing, train

  model_fn, law = train.load_run(run).model_fn, smoothing.ablation(keep=KEEP, shape=x.shape[1:])
  found = evaluate.pointwise_of_votes(
    model_fn, law, x, y, num_votes=VOTES, num_judges=AGAIN, alpha=ALPHA, chunk=CHUNK, **REDUCED
  )
  return {
    **row('randomized ablation', found.confirmed),
    'of these confirmed again': float(found.again[found.confirmed.success].mean()),
    'median of the search': median(found.search),
    'of its end points confirmed': float(found.ends[np.asarray(found.search.success)].mean()),
  }


def median(found):
  """An image that the attack could not turn counts as infinitely many."""
  from certjax import evaluate

  return evaluate.median_changed(found)


def pixels(found):
  pairs = zip(found.num_changed, found.success, strict=True)
  return [int(count) if success else None for count, success in pairs]


def row(name, found):
  """What was found of one classifier."""
  accuracy, published = PUBLISHED[name]
  return {
    'classifier': name,
    'median pixels': median(found),
    'published protocol': '-',
    'published median': published,
    'published accuracy': accuracy,
    'misclassified as they are': sum(count == 0 for count in pixels(found)),
    'not turned': int((~found.success).sum()),
    'questions an image': float(np.mean(found.num_queries)),
    'pixels': pixels(found),
  }


def kept(path, make):
  """A finished row, or a new one."""
  if not path.exists():
    path.write_text(json.dumps(make()))
  return json.loads(path.read_text())


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--ablation', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/sparse-attacks'))
  arguments = parser.parse_args()
  from certjax import data

  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  evenly = data.subset(data.dataset('mnist').sizes['test'], evenly=NUM_IMAGES)
  images = data.load('mnist', 'test', data_dir=arguments.data_dir, indices=evenly)
  x, y = data.to_float(images.images), np.asarray(images.labels)
  rows, out = [], arguments.out
  out.mkdir(parents=True, exist_ok=True)
  for name, make in classifiers(out, where, arguments.data_dir).items():
    made = kept(out / f'{name}.json', functools.partial(of_model, name, make, x, y))
    rows.append(made)
  of = functools.partial(of_ablation, arguments.ablation, x, y)
  rows.append(kept(out / 'randomized ablation.json', of))
  shown = [{name: each[name] for name in list(each)[:8]} for each in rows]
  table = common.markdown(shown)
  question = f'Median number of pixels that Pointwise changes, {NUM_IMAGES} MNIST test images'
  common.write_card('sparse_attacks', question, rows, table=table, not_run=NOT_RUN)
  print(table)


if __name__ == '__main__':
  main()
