"""Signs that an attack failed for another reason than robustness, as AutoAttack looks for them.

Each flag points to a paragraph of BUILD.md that says what it means and what to do. A flag proves nothing,
and neither does its absence: a defence that hides its gradient cleverly raises none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from certjax import attacks, certify
from certjax.evaluate._sanity import _are_probabilities

_CALLS, _RANDOM = 5, 1e-4  # As AutoAttack: calls, and the difference of logits that counts.
_SQUARE_SHARE = 0.002
_FEW_CLASSES = 4  # With fewer there is no targeted DLR.
_PAGE = 'BUILD.md'


class Flag(NamedTuple):
  """A reason to distrust an evaluation.

  Attributes:
    name: 'random', 'probabilities', 'zero-gradients', 'nan', 'optimisation', 'few-classes' or 'square'.
    message: one line, with what was seen.
    link: of the paragraph that explains it.
  """

  name: str
  message: str
  link: str


def distrust_flags(model_fn, x, y, *, outputs=None):
  """Looks at a model on a few images before it is attacked.

  Args:
    model_fn: `x[B, ...] -> logits[B, K]`, what attacks climb.
    x: float[B, ...], some images in [0, 1].
    y: int[B].
    outputs: `x -> logits`, of the network inside, where `model_fn` is an average over it.

  Returns:
    A list of `Flag`:
      random: calls on the same images differ by more than 1e-4;
      probabilities: the outputs are a softmax, whose loss is flat where the model is sure;
      zero-gradients: the loss or the margin has no gradient at an image;
      nan: a gradient is not finite;
      optimisation: the model takes gradients itself, or loops as long as its data say;
      few-classes: fewer than 4, so the margin stands in for the difference-of-logits ratio.

  Example:
    >>> [flag.name for flag in distrust_flags(lambda x: jax.nn.softmax(x), jnp.eye(4), jnp.arange(4))]
    ['probabilities']
  """
  x, y = np.asarray(x, np.float32), np.asarray(y, np.int32)
  outputs = model_fn if outputs is None else outputs
  calls = np.stack([certify.evaluate(outputs, x) for _ in range(_CALLS)])
  flags = []
  if not (largest := np.abs(calls - calls[0]).max()) <= _RANDOM:
    flags.append(
      _flag('random', f'{_CALLS} calls on the same images differ by up to {largest:.2g}')
    )
  if _are_probabilities(calls[0]):
    flags.append(_flag('probabilities', 'the outputs seem to be probabilities, not logits'))
  flags += _about_gradients(model_fn, x, y)
  if found := sorted(_signs(jax.make_jaxpr(model_fn)(x).jaxpr)):
    flags.append(_flag('optimisation', f'the model contains {" and ".join(found)}'))
  if calls.shape[-1] < _FEW_CLASSES:
    flags.append(
      _flag(
        'few-classes',
        f'{calls.shape[-1]} classes: the margin replaces the DLR where it is undefined',
      )
    )
  return flags


def square_flag(name, broken, total):
  """A list of the flag that Square broke what white-box attacks did not, or an empty one.

  Args:
    name: of the attack.
    broken: images that Square broke after the white-box parts.
    total: all images of the evaluation.

  Returns:
    A list of `Flag`.

  Example:
    >>> [flag.name for flag in square_flag('autoattack', 3, 1000)], square_flag('autoattack', 2, 1000)
    (['square'], [])
  """
  if broken <= _SQUARE_SHARE * total:
    return []
  return [
    _flag('square', f'{name}: Square broke {broken} of {total} images that no white-box part did')
  ]


def _about_gradients(model_fn, x, y):
  sizes = np.asarray(_gradient_sizes(jax.tree_util.Partial(model_fn), x, y))
  flags = []
  for size, what in zip(sizes, ('cross-entropy', 'margin'), strict=True):
    if (zero := (size == 0).sum()) and not flags:
      flags.append(
        _flag('zero-gradients', f'the {what} has no gradient at {zero} of {len(x)} probed images')
      )
  if lost := (~np.isfinite(sizes)).any(axis=0).sum():
    flags.append(_flag('nan', f'a gradient is not finite at {lost} of {len(x)} probed images'))
  return flags


@jax.jit
def _gradient_sizes(model_fn, x, y):
  """float[2, B], the largest component of the gradient of the cross-entropy, and of the margin."""
  total = lambda loss: lambda x: jnp.sum(jax.vmap(loss)(model_fn(x), y))
  gradients = [jax.grad(total(loss))(x) for loss in (attacks.cross_entropy, attacks.margin)]
  return jnp.stack([jnp.max(jnp.abs(g).reshape(len(x), -1), axis=1) for g in gradients])


def _signs(jaxpr):
  """What in a jaxpr says that the model optimises when it is asked."""
  found = set()
  for equation in jaxpr.eqns:
    # Reverse-mode differentiation leaves this word on the steps that it makes.
    if 'transpose(' in str(equation.source_info.name_stack):
      found.add('a gradient')
    if equation.primitive.name == 'while':
      found.add('a loop whose length depends on the data')
    for value in equation.params.values():
      for inner in map(_inner, value if isinstance(value, list | tuple) else (value,)):
        found |= _signs(inner) if inner is not None else set()
  return found


def _inner(value):
  """The jaxpr that a parameter of a step holds, or None."""
  value = getattr(value, 'jaxpr', value)
  return value if hasattr(value, 'eqns') else None


def _flag(name, message):
  return Flag(name, message, f'{_PAGE}#{_ANCHORS[name]}')


_ANCHORS = {
  'random': 'flag-random',
  'probabilities': 'flag-probabilities',
  'zero-gradients': 'flag-zero-gradients',
  'nan': 'flag-nan',
  'optimisation': 'flag-optimisation',
  'few-classes': 'flag-few-classes',
  'square': 'flag-square',
}
"""Flag -> heading of its paragraph."""
