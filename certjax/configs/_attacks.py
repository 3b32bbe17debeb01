"""The one table of attacks: what `certjax attack` can run, in which norms, with which parameters.

A name chooses a row; a row is a factory and the types of its parameters. One more attack is one more line.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from certjax.configs._beyond_norms import LATENTS, UNITS, latent_part, perceptual

_UNITS = {'l0': 'pixels', 'patch': 'patch side', **UNITS}
_DENSE = ('linf', 'l2', 'l1')
NORMS = (*_DENSE, *_UNITS)
"""Norms of `threat_of`."""


class Parameter(NamedTuple):
  """One parameter of an attack.

  Attributes:
    type: int, float, bool or str.
    default: its value; None: what `title` of the row, or the factory, says.
  """

  type: type
  default: Any = None


class Row(NamedTuple):
  """One attack of the table.

  Attributes:
    build: `(threat, num_classes, **parameters) -> tuple of attacks.Part`.
    title: one line, for help.
    norms: that it takes.
    parameters: dict from a name to its `Parameter`.
    reference: paper.
  """

  build: Callable
  title: str
  norms: tuple
  parameters: dict
  reference: str


def threat_of(norm, eps):
  """The `Threat` of a norm; a `Functional` where a latent changes the image; what 'lpips' is without its network.

  Args:
    norm: one of `NORMS`.
    eps: in the unit of `unit_of`: pixel values of [0, 1] in L_inf, L2 and L1.

  Returns:
    A `Threat` or a `Functional`.

  Raises:
    ValueError: for an unknown norm, or a bad eps.

  Example:
    >>> threat_of('l2', 0.5).norm
    'l2'
  """
  from certjax import threats

  if norm not in NORMS:
    raise ValueError(f'`norm` must be one of {", ".join(NORMS)}, got {norm!r}.')
  if norm == 'lpips':
    return perceptual(eps)
  if norm in LATENTS:
    return LATENTS[norm].build(eps)
  return getattr(threats, norm)(eps)


def unit_of(norm):
  """The unit of a threat's eps and distances.

  Args:
    norm: of the threat.

  Returns:
    The unit in words.

  Example:
    >>> unit_of('linf'), unit_of('l0')
    ('pixel value', 'pixels')
  """
  return _UNITS.get(norm, 'pixel value')


def build_attack(name, threat, num_classes, parameters=None):
  """The parts of an attack of the table.

  Args:
    name: a key of `ATTACKS`.
    threat: of `threat_of`.
    num_classes: K.
    parameters: dict from a parameter's name to its value; the rest have their defaults.

  Returns:
    A tuple of `attacks.Part`, one but for autoattack.

  Raises:
    ValueError: for an unknown name, norm or parameter, or a value that is not of its type.

  Example:
    >>> [part.name for part in build_attack('autoattack', threat_of('linf', 0.1), 10)]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']
  """
  row = _row(name)
  norm = threat.norm if hasattr(threat, 'norm') else threat.name
  if norm not in row.norms:
    able = ', '.join(key for key, other in ATTACKS.items() if norm in other.norms)
    raise ValueError(
      f'`attacks`: {name} is for {", ".join(row.norms)}, got norm {norm!r}, in which there are {able}.'
    )
  given = {key: typed(name, key, value) for key, value in (parameters or {}).items()}
  defaults = {key: parameter.default for key, parameter in row.parameters.items()}
  return row.build(threat, num_classes, **{**defaults, **given})


def typed(name, parameter, value):
  """A value as its parameter's type.

  Args:
    name: a key of `ATTACKS`.
    parameter: of that attack.
    value: a number or a word, as read from a command line.

  Raises:
    ValueError: for an unknown parameter, or another type.

  Example:
    >>> typed('pgd', 'num_steps', 40.0), typed('autoattack', 'version', 'plus')
    (40, 'plus')
  """
  known = _row(name).parameters
  if parameter not in known:
    raise ValueError(
      f'`options`: {name} has no parameter {parameter}; it takes {", ".join(known)}.'
    )
  kind = known[parameter].type
  try:
    converted = kind(value)
    fits = converted == value and (kind is str) == isinstance(value, str)
  except (TypeError, ValueError, OverflowError):
    fits = False
  if not fits:
    said = {int: 'a whole number', float: 'a number', bool: '0 or 1', str: 'a word'}[kind]
    raise ValueError(f'`options`: {name}.{parameter} is {said}, got {value!r}.')
  return converted


def _row(name):
  if name not in ATTACKS:
    raise ValueError(f'`attacks` must be among {", ".join(ATTACKS)}; got {name!r}.')
  return ATTACKS[name]


def _single(factory, *, budget=None, step=None, own=()):
  """Builds one part by a factory of `certjax.attacks`.

  Args:
    factory: its name.
    budget: the parameter that takes eps instead of the threat, or None.
    step: where the parameter step_size is None: `(eps, num_steps) -> step_size`.
    own: parameters that are left to the factory where they are None.
  """

  def build(threat, num_classes, **parameters):
    from certjax import attacks

    del num_classes
    if step and parameters['step_size'] is None:
      # At eps = 0 every step is the same, and none may have length 0.
      parameters['step_size'] = step(threat.eps, parameters['num_steps']) or 1.0
    settings = {
      key: value for key, value in parameters.items() if value is not None or key not in own
    }
    place = (threat,) if budget is None else ()
    budgets = {} if budget is None else {budget: threat.eps}
    name = factory.replace('_', '-')
    return (attacks.Part(name, getattr(attacks, factory)(*place, **budgets, **settings), settings),)

  return build


def _part(name):
  """Builds one part of AutoAttack."""

  def build(threat, num_classes, **parameters):
    from certjax import attacks

    settings = {key: value for key, value in parameters.items() if value is not None}
    return (attacks.autoattack_part(name, threat, num_classes, **settings),)

  return build


def _autoattack(threat, num_classes, *, version, num_steps, num_queries):
  from certjax import attacks

  return attacks.autoattack_parts(
    threat, version, num_classes, num_steps=num_steps, num_queries=num_queries
  )


_STEPS, _RESTARTS = Parameter(int, 100), Parameter(int, 1)
_RUNS = {'num_steps': _STEPS, 'num_restarts': _RESTARTS}
_APGD = {**_RUNS, 'large_eps': Parameter(bool, False)}
_TARGETS = Parameter(int, 9)
_PERCEPTUAL = {'projection': Parameter(str, 'newton')}
_AUTOATTACK = 'Croce & Hein 2020 (arXiv:2003.01690)'
_PAT = 'Laidlaw, Singla & Feizi 2021 (arXiv:2006.12655)'
_FAB = 'Croce & Hein 2020 (arXiv:1907.02044)'
_MADRY = lambda eps, num_steps: 2.5 * eps / max(num_steps, 1)

ATTACKS = {
  'fgsm': Row(
    _single('fgsm', own=('step_size',)), 'One step (FGSM): a weak attack', _DENSE,
    {'step_size': Parameter(float), 'random_start': Parameter(bool, False)},
    'Goodfellow et al. 2015 (arXiv:1412.6572)',
  ),
  'pgd': Row(
    _single('pgd', step=_MADRY), 'Projected gradient descent; step_size 2.5 eps / num_steps', _DENSE,
    {'num_steps': Parameter(int, 40), 'step_size': Parameter(float), 'num_restarts': _RESTARTS},
    'Madry et al. 2018 (arXiv:1706.06083)',
  ),
  'apgd-ce': Row(_part('apgd-ce'), 'APGD on the cross-entropy', _DENSE, _APGD, _AUTOATTACK),
  'apgd-dlr': Row(
    _part('apgd-dlr'), 'APGD on the difference-of-logits ratio', _DENSE, _APGD, _AUTOATTACK
  ),
  'apgd-t': Row(
    _part('apgd-t'), 'APGD towards each of several classes', _DENSE, {**_APGD, 'targets': _TARGETS},
    _AUTOATTACK,
  ),
  'fab': Row(_part('fab'), 'FAB: the nearest boundary', _DENSE, _RUNS, _FAB),
  'fab-t': Row(
    _part('fab-t'), 'FAB towards each of several classes', _DENSE, {**_RUNS, 'targets': _TARGETS}, _FAB
  ),
  'square': Row(
    _part('square'), 'Square: random search, no gradient', _DENSE, {'num_queries': Parameter(int, 5000)},
    'Andriushchenko et al. 2020 (arXiv:1912.00049)',
  ),
  'deepfool': Row(
    _single('deepfool'), 'DeepFool: the nearest boundary of the linear model', _DENSE,
    {'num_steps': Parameter(int, 50), 'overshoot': Parameter(float, 0.02)},
    'Moosavi-Dezfooli et al. 2016 (arXiv:1511.04599)',
  ),
  'ddn': Row(
    _single('ddn', own=('init_norm',)), 'Decoupled direction and norm (DDN); init_norm: eps', ('l2',),
    {'num_steps': _STEPS, 'gamma': Parameter(float, 0.05), 'init_norm': Parameter(float)},
    'Rony et al. 2019 (arXiv:1811.09600)',
  ),
  'autoattack': Row(
    _autoattack, 'AutoAttack; version standard, plus or rand', _DENSE, {
      'version': Parameter(str, 'standard'), 'num_steps': _STEPS, 'num_queries': Parameter(int, 5000),
    }, _AUTOATTACK,
  ),
  'pgd0': Row(
    _single('pgd0', budget='pixels'), 'PGD on few pixels', ('l0',),
    {'num_steps': Parameter(int, 20), 'step_size': Parameter(float, 235.0), 'num_restarts': Parameter(int, 3)},
    'Croce & Hein 2019 (arXiv:1909.05040)',
  ),
  'sparse-rs': Row(
    _single('sparse_rs', budget='pixels'), 'Sparse-RS: random search over few pixels, no gradient', ('l0',),
    {'num_queries': Parameter(int, 10_000), 'alpha_init': Parameter(float, 0.3)},
    'Croce et al. 2022 (arXiv:2006.12834)',
  ),
  'patch-pgd': Row(
    _single('patch_pgd', budget='side', own=('num_locations',)),
    'PGD in a square at many places; num_locations: all', ('patch',), {
      'num_steps': Parameter(int, 150), 'step_size': Parameter(float, 0.05), 'num_locations': Parameter(int),
    }, 'Levine & Feizi 2020 (arXiv:2002.10733)',
  ),
  'sparse-rs-patch': Row(
    _single('sparse_rs_patch', budget='side'), 'Sparse-RS on a square: no gradient', ('patch',),
    {'num_queries': Parameter(int, 10_000), 'alpha_init': Parameter(float, 0.4)},
    'Croce et al. 2022 (arXiv:2006.12834)',
  ),
  'ppgd': Row(
    _single('ppgd', budget='eps', own=('step_size',)), 'Perceptual PGD; step_size 2 eps / num_steps', ('lpips',),
    {
      'num_steps': Parameter(int, 40), 'cg_steps': Parameter(int, 5), 'damping': Parameter(float, 0.0),
      'step_size': Parameter(float), 'kappa': Parameter(float, 1.0), **_PERCEPTUAL,
    }, _PAT,
  ),
  'lpa': Row(
    _single('lpa', budget='eps'), 'Lagrangian perceptual attack', ('lpips',), {
      'num_steps': Parameter(int, 40), 'search_steps': Parameter(int, 5), 'kappa': Parameter(float, 1.0),
      **_PERCEPTUAL,
    }, _PAT,
  ),
  'fast-lpa': Row(
    _single('fast_lpa', budget='eps'), 'Lagrangian perceptual attack in one descent', ('lpips',),
    {'num_steps': Parameter(int, 20), **_PERCEPTUAL}, _PAT,
  ),
  'latent': Row(
    latent_part, "Ascent in the latent of a functional threat; what is left out is the threat's own",
    tuple(LATENTS), {
      'num_steps': _STEPS, 'step_size': Parameter(float), 'optimizer': Parameter(str),
      'penalty_weight': Parameter(float), 'random_start': Parameter(bool, False),
    }, 'Laidlaw & Feizi 2019 (arXiv:1906.00001); Kang et al. 2019 (arXiv:1908.08016)',
  ),
}  # fmt: skip
"""Name -> its row."""
