"""Classifiers of the recipes: trained from a preset, certified or attacked; all below the folder of a request."""

import dataclasses
from typing import Any, NamedTuple

import jax

from certjax import data, evaluate, records, report, train

_QUANTIFIER = 'with probability 1 - alpha for each image'


def trained(request, name, preset, noise=None, **changed) -> train.TrainedRun:
  """A preset, trained in the folder `name` of the request's, or continued there.

  Args:
    request: a `Request` whose `presets` hold the preset.
    name: of the folder.
    preset: a key of `presets`.
    noise: the `Smoothing` whose noise is added, or None.
    **changed: fields of the preset that are other here; the seed is the request's unless it is given.

  Returns:
    The `train.TrainedRun`.

  Raises:
    ValueError: as `train.run`.
  """
  where = request.out / name
  config = dataclasses.replace(
    request.presets[preset], **{'seed': request.seed, **changed}, out=where,
    data_dir=request.data_dir,
  )  # fmt: skip
  train.run(config, noise)
  request.say(f'trained: {where}')
  return train.load_run(where)


def test_images(request, dataset, num_images) -> data.Images:
  """So many evenly spaced test images."""
  indices = data.subset(data.dataset(dataset).sizes['test'], evenly=num_images)
  return data.load(dataset, 'test', data_dir=request.data_dir, indices=indices)


def certified(request, name, run, method, noise, images, *, num_samples, num_selection=100, alpha=1e-3, chunk=1000) -> report.Run:  # fmt: skip
  """A trained run certified by its noise, with records in its folder; continued where they end.

  Args:
    request: a `Request`.
    name: of the folder, as in `trained`.
    run: the `train.TrainedRun`.
    method: name of the noise, for the header.
    noise: a `Smoothing`, sampled, or `Views`, all of which are evaluated.
    images: `data.Images`.
    num_samples, num_selection, alpha, chunk: of `evaluate.certified_records`; of views the chunk alone.

  Returns:
    The `report.Run`.
  """
  where, exact = request.out / name, evaluate.is_exact(noise)
  sampling = {'chunk': chunk}
  if not exact:
    sampling |= {'num_selection': num_selection, 'num_samples': num_samples, 'alpha': alpha}
  settings = {**sampling, 'method': method, 'sigma': run.config['sigma'], 'seed': request.seed}
  header = evaluate.header(
    'certify', settings, noise, 'exact' if exact else _QUANTIFIER, run.variables, images
  )
  find = evaluate.enumerated_records if exact else evaluate.certified_records
  with records.writer(where, header) as written:
    done = {record['index'] for record in written.finished}
    rest = data.take(images, [int(index) not in done for index in images.index])
    for record, seconds in find(
      jax.random.key(request.seed), run.model_fn, noise, rest, **sampling
    ):
      written.append(record, {'seconds': round(seconds, 6)})
  request.say(f'certified: {where}')
  return report.load(where)


class Armed(NamedTuple):
  """One attack of one threat, made once: all classifiers of a recipe share its program.

  Attributes:
    norm, eps, unit: of the threat.
    name: of the attack.
    threat: a `Threat`, a `Functional`, or what 'lpips' is without its network.
    parts: tuple of `attacks.Part`.
  """

  norm: str
  eps: float
  unit: str
  name: str
  threat: Any
  parts: tuple


def armed(request, name, norm, eps, dataset, **parameters) -> Armed:
  """An attack by its names, as `certjax attack` knows them.

  Args:
    request: a `Request` with `attacks`.
    name, norm, eps: of the attack and its threat.
    dataset: name, for the number of classes.
    **parameters: of the attack; the rest have their defaults.

  Raises:
    ValueError: without `attacks`, and as `configs.build_attack`.
  """
  if request.attacks is None:
    raise ValueError('`attacks` of the request is None: give the tables of certjax.configs.')
  threat = request.attacks.threat_of(norm, eps)
  classes = data.dataset(dataset).num_classes
  parts = request.attacks.build(name, threat, classes, parameters)
  return Armed(norm, eps, request.attacks.unit_of(norm), name, threat, parts)


def attacked(request, name, run, attack, images, *, measure=None, batch_size=100) -> report.Column:
  """A trained run under one attack, every image stored and judged from there; continued where it ended.

  Args:
    request: a `Request`.
    name: of the folder; the attack's is below `run`'s, see `place`.
    run: the `train.TrainedRun`.
    attack: an `Armed`.
    images: `data.Images`.
    measure: the `train.Measure` of LPIPS; of other norms unused.
    batch_size: images an attack sees at once.
  """
  where = place(request, name, attack)
  target = evaluate.plain_target(run.model_fn, batch_size=batch_size)
  reach, constants = attack.threat, {}
  if attack.norm == 'lpips':
    target = evaluate.perceptual_target(target, measure.feature_fn, own=False)
    reach = evaluate.perceptual_set(attack.eps, measure.feature_fn, batch_size=batch_size)
    constants = {'features': measure.sha256}
  elif hasattr(attack.threat, 'decode'):
    reach = evaluate.latent_set(attack.norm, attack.threat, batch_size=batch_size)
  settings = {
    'dataset': run.config['dataset'], 'split': 'test', 'seed': request.seed, 'batch_size': batch_size,
  }  # fmt: skip
  header = evaluate.header('attack', settings, attack, 'attack, no proof', run.variables, images)
  found = evaluate.attacked(
    where, jax.random.key(request.seed), target, {attack.name: attack.parts}, reach, images,
    header={**header, 'eps': attack.eps, **constants}, batch_size=batch_size,
  )  # fmt: skip
  summary = evaluate.attack_summary(found, norm=attack.norm, eps=attack.eps, unit=attack.unit)
  evaluate.write_attack_report(summary, where)
  request.say(f'attacked: {where}')
  return report.load_attacked(where)


def place(request, name, attack):
  """The folder of an attack on the run `name`."""
  return request.out / name / f'{attack.name}-{attack.norm}-{attack.eps:g}'
