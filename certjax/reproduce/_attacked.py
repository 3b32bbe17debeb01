"""A trained classifier under an attack, by the names that `certjax attack` knows: what recipes of attacks share."""

from typing import Any, NamedTuple

import jax

from certjax import data, evaluate, report


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
    if measure is None:
      raise ValueError(
        '`measure` must be a `train.Measure` for lpips, got None: load a run for it.'
      )
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
    jax.random.key(request.seed), where, target, {attack.name: attack.parts}, reach, images,
    header={**header, 'eps': attack.eps, **constants}, batch_size=batch_size,
  )  # fmt: skip
  summary = evaluate.attack_summary(found, norm=attack.norm, eps=attack.eps, unit=attack.unit)
  evaluate.write_attack_report(summary, where)
  request.say(f'attacked: {where}')
  return report.load_attacked(where)


def place(request, name, attack):
  """The folder of an attack on the run `name`."""
  return request.out / name / f'{attack.name}-{attack.norm}-{attack.eps:g}'
