"""A preset trained on the data of a scale, and its certificates: what recipes on images share.

Training and records lie under the request's directory, and continue there.
"""

import dataclasses
from typing import NamedTuple

import jax

from certjax import data, evaluate, records, report, train

_EXACT = 'exact'
_SAMPLED = 'with probability 1 - alpha for each image'


class Sampling(NamedTuple):
  """How a smoothed model is asked, as in `certify.sampled`.

  Attributes:
    num_selection: N0, samples that choose the class.
    num_samples: N, samples that count its votes.
    alpha: failure probability of a certificate.
    chunk: views that are evaluated at once.
  """

  num_selection: int
  num_samples: int
  alpha: float
  chunk: int = 1000

  def __str__(self):
    return f'N0 = {self.num_selection:,}, N = {self.num_samples:,}, alpha = {self.alpha:g}'


def trained(request, preset, where, law=None, **changed) -> train.TrainedRun:
  """A preset with changed fields, trained in a folder of the request's directory.

  Args:
    request: a `Request`, whose presets hold `preset`.
    preset: its name.
    where: name of the folder.
    law: the `Smoothing` or `Views` that the changed config names, or None.
    **changed: fields of the config; the seed is the request's unless it is given.

  Raises:
    ValueError: as `train.run`.
  """
  config = dataclasses.replace(
    request.presets[preset], **{'seed': request.seed, **changed}, out=request.out / where,
    data_dir=request.data_dir,
  )  # fmt: skip
  train.run(config, law)
  request.say(f'trained: {config.out}')
  return train.load_run(config.out)


def images_of(request, dataset, num_images=None) -> data.Images:
  """Evenly spaced test images of a data set; all of them by default."""
  every = data.dataset(dataset).size('test')
  indices = data.subset(every, evenly=num_images or every)
  return data.load(dataset, 'test', data_dir=request.data_dir, indices=indices)


def certified(request, run, law, images, where, *, sampling=None, **settings) -> report.Run:
  """Certificates of a trained model, one record an image.

  Args:
    request: a `Request`.
    run: from `trained`.
    law: a `Smoothing`, `Views`, or what `evaluate.is_clean`.
    images: of `images_of`.
    where: name of the folder of the records.
    sampling: a `Sampling`, of a `Smoothing` alone.
    **settings: what else the records depend on, as JSON values: the method and its parameters.
  """
  out, network = request.out / where, None
  options = {} if sampling is None else sampling._asdict()
  settings = {**settings, **options, 'seed': request.seed}
  if evaluate.is_clean(law):
    network = evaluate.clean_network(run.model_fn, law, shape=images.images.shape[1:])
  header = evaluate.header(
    'certify', settings, law, _SAMPLED if sampling else _EXACT, run.variables, images,
    getattr(network, 'constants', None),
  )  # fmt: skip
  with records.writer(out, header) as written:
    done = {record['index'] for record in written.finished}
    rest = data.take(images, [int(index) not in done for index in images.index])
    for record, seconds in _records(request.seed, run.model_fn, law, network, rest, options):
      written.append(record, {'seconds': round(seconds, 6)})
  request.say(f'certified: {out}')
  return report.load(out)


def _records(seed, model_fn, law, network, images, options):
  if network is not None:
    return evaluate.clean_records(network, images)
  make = evaluate.certified_records if options else evaluate.enumerated_records
  return make(jax.random.key(seed), model_fn, law, images, **options)
