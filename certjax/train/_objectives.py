"""Training methods by name, as configs store them."""

import functools
import inspect

from certjax import threats
from certjax.train._adversarial import adversarial_training, clean, fast_adversarial
from certjax.train._attack_and_bound import mtl_ibp, sabr
from certjax.train._certified import crown_ibp, diffai, ibp, wong_kolter
from certjax.train._consistency import consistency
from certjax.train._copies import augmented
from certjax.train._curvature import crt
from certjax.train._free import free_adversarial
from certjax.train._lipschitz import lipschitz, multi_margin
from certjax.train._losses import cross_entropy
from certjax.train._macer import macer
from certjax.train._mart import mart
from certjax.train._masked_features import masked_features
from certjax.train._pat import pat, phi_of
from certjax.train._patch import DEFAULT_PIXELS, DEFAULT_SIDE, patch_ibp, sparse_ibp
from certjax.train._self_supervised import SELF_SUPERVISED, rotnet, simclr
from certjax.train._smoothadv import smooth_adv
from certjax.train._smoothmix import smooth_mix
from certjax.train._stability import stability
from certjax.train._threat_models import THREAT_MODELS
from certjax.train._trades import trades

OBJECTIVES = {
  'noise': augmented,
  'stability': stability,
  'stability-clean': functools.partial(stability, variant='clean', weight=2.0),
  'smooth-adv-pgd': functools.partial(smooth_adv, attack='pgd'),
  'smooth-adv-ddn': functools.partial(smooth_adv, attack='ddn'),
  'macer': macer,
  'consistency': consistency,
  'smooth-mix': smooth_mix,
  'lipschitz': lipschitz,
  'multi-margin': multi_margin,
  'clean': clean,
  'adversarial': adversarial_training,
  'adversarial-l2': functools.partial(adversarial_training, eps=0.5, threat=threats.l2),
  'adversarial-awp': functools.partial(adversarial_training, gamma=0.01),
  'fast-adversarial': fast_adversarial,
  'free-adversarial': free_adversarial,
  'trades': trades,
  'trades-l2': functools.partial(trades, eps=0.5, threat=threats.l2),
  'trades-awp': functools.partial(trades, gamma=5e-3),
  'mart': mart,
  'pat': pat,
  **THREAT_MODELS,
  'ibp': ibp,
  'crown-ibp': crown_ibp,
  'diffai': diffai,
  'wong-kolter': wong_kolter,
  'sabr': sabr,
  'mtl-ibp': mtl_ibp,
  'crt': crt,
  'masked-features': masked_features,
  'patch-ibp': patch_ibp,
  'sparse-ibp': sparse_ibp,
  'rotnet': rotnet,
  'simclr': simclr,
}
CERTIFIED = ('ibp', 'crown-ibp', 'diffai', 'wong-kolter', 'sabr', 'mtl-ibp')
"""Methods that train for a proof by bounds on the network."""
REPLACED = {'patch-ibp': ('side', DEFAULT_SIDE), 'sparse-ibp': ('pixels', DEFAULT_PIXELS)}
"""Methods that train for a proof against replaced pixels: the parameter that says how many, and its default."""
ATTACKED = (
  'adversarial', 'adversarial-l2', 'adversarial-awp', 'fast-adversarial', 'free-adversarial', 'trades',
  'trades-l2', 'trades-awp', 'mart', 'pat', *THREAT_MODELS,
)  # fmt: skip
"""Methods that train against an attack, without noise and without a proof."""
_MEASURED = 'embed'  # The parameter that takes another network's phi.
# Parameters that the name of a method fixes, or Python gives.
_CODE = ('attack', 'threat', 'variant', _MEASURED, 'parts')
# Trained on images without noise.
_CLEAN = (
  'lipschitz', 'multi-margin', 'clean', 'crt', 'masked-features', *ATTACKED, *CERTIFIED, *REPLACED,
  *SELF_SUPERVISED,
)  # fmt: skip


def objective(name, smoothing, *, sigma, warmup_steps=0, features=None, **parameters) -> dict:
  """The keyword arguments of `make_step` for a training method.

  Args:
    name: a key of `OBJECTIVES`.
    smoothing: a `Smoothing`, or None for training without noise.
    sigma: standard deviation of the noise, for the methods that need it.
    warmup_steps: steps over which an attack's budget grows, where the method has one.
    features: the `FeatureFn` of a network that measures the method's distance, a
      `jax.tree_util.Partial`; None for the network that is trained.
    **parameters: of the method (numbers; counts may come as floats).

  Returns:
    {'loss': ..., 'perturb': ...}, or {'loss', 'smoothing'} for plain noise augmentation; with 'weights' for
    adversarial weight perturbation, with 'replays' where a step is several updates.

  Raises:
    ValueError: for an unknown method or parameter, a method that needs noise without any, one of clean
      images with some, or `features` for one that measures nothing by them.

  Example:
    >>> from certjax import smoothing
    >>> noise = smoothing.gaussian(sigma=0.25)
    >>> sorted(objective('consistency', noise, sigma=0.25, weight=20))
    ['loss', 'perturb']
  """
  if name not in OBJECTIVES:
    raise ValueError(f'`objective` must be one of {", ".join(OBJECTIVES)}; got {name!r}.')
  if name == 'noise' and not parameters and features is None:
    return {'loss': cross_entropy, 'smoothing': smoothing}
  if name in _CLEAN and smoothing is not None:
    raise ValueError(f'`objective`={name!r} trains on clean images: choose `method` none.')
  if smoothing is None and name not in _CLEAN:
    raise ValueError(f'`objective`={name!r} trains under noise: choose a `method` other than none.')
  make = OBJECTIVES[name]
  known = inspect.signature(make).parameters
  ours = {'smoothing': smoothing, 'sigma': sigma, 'warmup_steps': warmup_steps}
  allowed = [parameter for parameter in known if parameter not in (*ours, *_CODE)]
  if unknown := [parameter for parameter in parameters if parameter not in allowed]:
    raise ValueError(
      f'objective {name!r} has no parameter {", ".join(unknown)}; it takes {", ".join(allowed)}.'
    )
  given = {parameter: value for parameter, value in ours.items() if parameter in known}
  if features is not None:
    if _MEASURED not in known:
      raise ValueError(
        f'`features` measure the distance of objective pat, got objective {name!r}: leave them out.'
      )
    given[_MEASURED] = phi_of(features)
  made = make(**given, **{key: _whole(key, value) for key, value in parameters.items()})
  return made._asdict()


def _whole(name, value):
  """Counts are ints, whatever the command line made of them."""
  return int(value) if name.startswith('num_') and value == int(value) else value
