"""What finished directories of `certjax attack` hold: their attacks, and the images before them."""

import pathlib
from typing import NamedTuple

from certjax import records, report


class Stored(NamedTuple):
  """One attack of a directory.

  Attributes:
    attack, norm: names.
    bound, unit: of the threat's size.
    directory: of the attack.
    dataset: (name, split).
  """

  attack: str
  norm: str
  bound: float
  unit: str
  directory: pathlib.Path
  dataset: tuple


def find(directory) -> list:
  """The attacks of a directory.

  Raises:
    ValueError: if it is not finished, or its table is damaged.
  """
  summary = report.read_attacks(directory)
  settings = records.read(directory / 'clean')[0]['config']
  dataset = settings['dataset'], settings['split']
  return [
    Stored(name, summary.norm, summary.eps, summary.unit, directory / name, dataset)
    for name in summary.attacks
  ]


def source_of(stored, data_dir):
  """The `data.Source` that an attack took its images from."""
  from certjax import data

  name, split = stored.dataset
  return data.source(name, split, data_dir)


def originals(stored, broken, source):
  """The `data.Images` of what was broken.

  Args:
    stored: a `Stored`.
    broken: an `evaluate.Broken`.
    source: of `source_of`.

  Raises:
    ValueError: if the adversarial images cannot be of this source.
  """
  from certjax import data

  images, x_adv = data.take(data.stream(source, broken.index), slice(None)), broken.x_adv
  if x_adv.shape != images.images.shape or not ((x_adv >= 0) & (x_adv <= 1)).all():
    raise ValueError(
      f'{stored.directory}: adversarial images must lie in [0, 1] and have shape {images.images.shape}, got '
      f'{x_adv.shape}: give the --data-dir of the attack.'
    )
  return images


def examples(runs, data_dir):
  """Images of certified runs for a page, where their data set is at hand; needs no JAX.

  Args:
    runs: a list of `report.Run`.
    data_dir: prepared TFDS directory, or None.

  Returns:
    A dict, a run's name -> a list of `report.Example`, and a list of sentences about runs without images.
  """
  found, notes = {}, []
  for run in runs:
    try:
      found[run.name] = _examples(run, data_dir)
    except (ValueError, OSError) as error:
      reason = ' '.join(str(error).split())
      notes.append(f'{run.name}: its images are not shown. {reason}')
  return found, notes


def _examples(run, data_dir):
  from certjax import data

  config = (run.header or {}).get('config') or {}
  if 'dataset' not in config:
    raise ValueError('The records do not name their data set.')
  stream = data.stream(
    data.source(config['dataset'], config.get('split', 'test'), data_dir), run.index
  )
  sha = run.header.get('images_sha256')
  if not run.problems and data.fingerprint(stream) != sha:
    raise ValueError(f'The images of {config["dataset"]} here are not those of the records.')
  chosen = report.chosen(run)
  images = data.take(stream, [place for _, place in chosen])
  if images.labels.tolist() != [int(run.labels[place]) for _, place in chosen]:
    raise ValueError(f'The labels of {config["dataset"]} here are not those of the records.')
  label, radius = run.certificate
  return [
    report.Example(
      kind, int(run.index[place]), int(run.labels[place]), int(label[place]), float(radius[place]), image,
    )
    for (kind, place), image in zip(chosen, images.images, strict=True)
  ]  # fmt: skip
