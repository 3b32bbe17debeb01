"""What finished directories of `certjax attack` hold: their attacks, and the images that these broke."""

import pathlib
from typing import Any, NamedTuple

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


class Broken(NamedTuple):
  """Images that an attack broke, by their index.

  Attributes:
    index: int64[M], in the split.
    labels, predict: int64[M], the label, and the classifier's answer to the adversarial image.
    x_adv: float32[M, H, W, C]; None of no image.
  """

  index: Any
  labels: Any
  predict: Any
  x_adv: Any


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


def broken(directory, largest=None) -> Broken:
  """What an attack, or one of its parts, broke.

  Args:
    directory: of a `Stored`.
    largest: at most so many images, evenly spaced.

  Raises:
    ValueError: for missing or damaged arrays.
  """
  import numpy as np

  parts = [path.parent for path in sorted(directory.glob(f'*/{records.RECORDS}'))] or [directory]
  found = [pair for part in parts for pair in _successes(part)]
  found.sort(key=lambda pair: pair[0]['index'])
  if largest is not None and len(found) > largest:
    found = [found[i * len(found) // largest] for i in range(largest)]
  column = lambda name: np.array([line[name] for line, _ in found], np.int64)
  x_adv = np.stack([image for _, image in found]) if found else None
  return Broken(column('index'), column('label'), column('predict'), x_adv)


def source_of(stored, data_dir):
  """The `data.Source` that an attack took its images from."""
  from certjax import data

  name, split = stored.dataset
  return data.source(name, split, data_dir)


def originals(stored, broken, source):
  """The `data.Images` of what was broken.

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


def _successes(directory):
  """(record, image) of each success of one part."""
  from certjax.evaluate import read_adversarials

  lines = records.read(directory)[1]
  paths = sorted((directory / 'adversarial').glob('*.npz'))
  starts = [int(path.stem) for path in paths]
  if lines and (not starts or starts[0] != 0):
    raise ValueError(f'{directory}: its adversarial images are missing: attack anew.')
  for path, start, end in zip(paths, starts, [*starts[1:], len(lines)], strict=True):
    here = lines[start:end]
    for line, image in zip(
      here, read_adversarials(path, [line['index'] for line in here]), strict=True
    ):
      if line['success']:
        yield line, image


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
