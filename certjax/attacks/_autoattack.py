"""AutoAttack (Croce & Hein 2020): attacks that fail in different ways, one after the other.

A fixed list, without parameters to choose, against claims of robustness that one badly tuned attack
supported. The lists are data: a version and a norm give the parts. `autoattack` is one trace, in which
every image goes through all parts; `evaluate.attacked` runs each part on those images only that
are still classified right, which costs less and gives the same points.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from certjax.attacks._apgd import apgd
from certjax.attacks._fab import fab
from certjax.attacks._loss import cross_entropy, dlr, margin
from certjax.attacks._pgd import _keep, row_keys
from certjax.attacks._square import square

_DLR_CLASSES = 3  # Fewer have no third largest logit.

_DENSE = (
  ('apgd-ce', {'num_restarts': 1}),
  ('apgd-t', {'targets': 9}),
  ('fab-t', {'targets': 9}),
  ('square', {}),
)
_PLUS = (
  ('apgd-ce', {'num_restarts': 5}),
  ('apgd-dlr', {'num_restarts': 5}),
  ('fab', {'num_restarts': 5}),
  ('square', {}),
  ('apgd-t', {'targets': 9}),
  ('fab-t', {'targets': 9}),
)
_RAND = (('apgd-ce', {'num_restarts': 1}), ('apgd-dlr', {'num_restarts': 1}))
_SPARSE = (
  ('apgd-ce', {'num_restarts': 5, 'large_eps': True}),
  ('apgd-t', {'targets': 5, 'large_eps': True}),
  ('fab-t', {'targets': 9}),
  ('square', {}),
)
VERSIONS = {
  'standard': {'linf': _DENSE, 'l2': _DENSE, 'l1': _SPARSE},
  'plus': {'linf': _PLUS, 'l2': _PLUS, 'l1': _PLUS},
  'rand': {'linf': _RAND, 'l2': _RAND, 'l1': _RAND},
}
"""Version -> norm -> (part, its settings), in the order of the authors' code."""


class Part(NamedTuple):
  """One attack of a list.

  Attributes:
    name: a word for tables and directories.
    attack: an `Attack`.
    settings: dict of JSON values it was made with.
  """

  name: str
  attack: Any
  settings: dict


def autoattack(threat, *, version='standard', num_steps=100, num_queries=5000):
  """Runs the parts of a version in order; an image keeps the first misclassified point.

    standard  APGD on the cross-entropy, APGD-T, FAB-T, Square
    plus      APGD on the cross-entropy and on the DLR, FAB (5 restarts each), Square, APGD-T, FAB-T
    rand      APGD on the cross-entropy and on the DLR, for random models: let them attack their mean,
              `attacks.eot(key, random_fn, num_draws=20)`, or `attacks.expected` of a smoothed model

  Targeted parts aim at min(9, K - 1) classes; where the DLR is undefined (K < 3, targeted K < 4) the
  margin stands in.

  Args:
    threat: an L_inf, L2 or L1 `Threat`.
    version: a key of `VERSIONS`.
    num_steps: static steps of a run of APGD and FAB.
    num_queries: static queries of Square.

  Returns:
    An `Attack`, one trace in which all rows do all the work. Where no part succeeds, the point with
    the largest `attacks.margin`, x among them. Part i draws with fold_in(key of the row, i).

  Raises:
    ValueError: for an unknown version or norm, or a bad number of steps or queries.

  Example:
    >>> from certjax import threats
    >>> model_fn = lambda x: jnp.stack([x.sum((1, 2, 3)), jnp.full(len(x), 7.0)], axis=1)
    >>> attack = autoattack(threats.linf(0.25), version='rand', num_steps=5)
    >>> x_adv = attack(jax.random.key(0), model_fn, jnp.full((1, 4, 4, 1), 0.5), jnp.array([0]))
    >>> bool(model_fn(x_adv)[0].argmax())
    True

  References:
    Croce & Hein 2020 (arXiv:2003.01690), section 6; for L1: Croce & Hein 2021 (arXiv:2103.01208).
  """
  # Deviation: of random models the mean is attacked, with the same draws in every step; published: the mean of
  # the gradients of 20 fresh ones.
  lengths = {'num_steps': num_steps, 'num_queries': num_queries}
  autoattack_parts(threat, version, 2, **lengths)  # Refuses before anything is traced.

  def attack(key, model_fn, x, y):
    keys = row_keys(key, len(x))
    score = lambda point: jax.vmap(margin)(model_fn(point), y)
    parts = autoattack_parts(threat, version, jax.eval_shape(model_fn, x).shape[-1], **lengths)
    best = x, score(x)
    for number, each in enumerate(parts):
      point = each.attack(part_keys(keys, number), model_fn, x, y)
      # The first success stays, as where only survivors go on.
      best = _keep(best, (point, jnp.where(best[1] > 0, -jnp.inf, score(point))))
    return best[0]

  return attack


def autoattack_parts(threat, version, num_classes, *, num_steps=100, num_queries=5000):
  """The parts of `autoattack` for models of so many classes.

  Args:
    threat, version, num_steps, num_queries: as in `autoattack`.
    num_classes: K, at least 2.

  Returns:
    A tuple of `Part`.

  Raises:
    ValueError: as `autoattack`.

  Example:
    >>> from certjax import threats
    >>> [(part.name, part.settings.get('targets')) for part in autoattack_parts(threats.linf(0.1), 'standard', 3)]
    [('apgd-ce', None), ('apgd-t', 2), ('fab-t', 2), ('square', None)]
  """
  if version not in VERSIONS:
    raise ValueError(f'`version` must be one of {", ".join(VERSIONS)}, got {version!r}.')
  rows = VERSIONS[version]
  if threat.norm not in rows:
    raise ValueError(
      f'`threat` must be one of {", ".join(rows)}, got {threat.norm!r}: for whole pixels run '
      f'attacks.sparse_rs and attacks.pgd0, or attacks.patch_pgd.'
    )
  if num_classes < 2:
    raise ValueError(f'`num_classes` must be at least 2, got {num_classes}.')
  lengths = {'num_steps': num_steps, 'num_queries': num_queries}
  return tuple(
    autoattack_part(name, threat, num_classes, **lengths, **more)
    for name, more in rows[threat.norm]
  )


def autoattack_part(name, threat, num_classes, *, num_steps=100, num_queries=5000, **settings):
  """One part by its name: 'apgd-ce', 'apgd-dlr', 'apgd-t', 'fab', 'fab-t' or 'square'.

  Args:
    name: see above.
    threat: an L_inf, L2 or L1 `Threat`.
    num_classes: K, which bounds `targets` and replaces the DLR of too few logits by the margin.
    num_steps, num_queries: as in `autoattack`.
    **settings: `num_restarts`, `targets` and `large_eps` of the parts that have them.

  Returns:
    A `Part`.

  Example:
    >>> from certjax import threats
    >>> autoattack_part('apgd-dlr', threats.l2(1.0), 2, num_restarts=3).settings
    {'num_restarts': 3, 'loss': 'margin', 'num_steps': 100}
  """
  if name == 'square':
    attack = square(threat, num_queries=num_queries)
    return Part(name, attack, {'num_queries': num_queries})
  if settings.get('targets') is not None:
    settings['targets'] = min(settings['targets'], num_classes - 1)
  loss = _LOSSES.get(name)
  if loss is dlr and num_classes < _DLR_CLASSES:
    loss = margin
  make = fab if name.startswith('fab') else apgd
  chosen: dict[str, Any] = {'loss': loss} if loss else {}
  attack = make(threat, num_steps=num_steps, **settings, **chosen)
  named = {'loss': loss.__name__} if loss else {}
  return Part(name, attack, {**settings, **named, 'num_steps': num_steps})


_LOSSES = {'apgd-ce': cross_entropy, 'apgd-dlr': dlr}


def part_keys(keys, number):
  """Key[B] that part `number` draws with.

  Args:
    keys: Key[B], one an image.
    number: int, which part.

  Returns:
    Key[B].

  Example:
    >>> part_keys(jax.random.split(jax.random.key(0), 3), 1).shape
    (3,)
  """
  return jax.vmap(jax.random.fold_in, (0, None))(keys, jnp.uint32(number))
