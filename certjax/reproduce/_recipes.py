"""The recipes that can be run, and the checks before one is."""

from types import MappingProxyType

from certjax import data
from certjax.reproduce import (
  _ablation,
  _ablation_vs_lee,
  _attack_gallery,
  _attack_overlap,
  _cohen,
  _curse_of_dimensionality,
  _heuristic_defenses,
  _landscape,
  _naive_partitioning,
  _one_dimensional_proof,
  _partition_aggregation,
  _patch_bands,
  _perceptibility,
  _perceptual_training,
  _recoloring,
  _smoothed_regions,
  _soc_approximation_error,
  _soc_vs_bcop,
  _sparse_empirical,
  _splitting_noise,
  _ssn_representation,
  _trained_bounds,
  _wasserstein,
)
from certjax.reproduce._nouns import ARITHMETIC, Request, Result

_READY_AT_ONCE = ('digits',)  # Prepared by whoever first reads it, from scikit-learn.

RECIPES = MappingProxyType({
  recipe.name: recipe
  for recipe in (
    *_cohen.RECIPES,
    _smoothed_regions.RECIPE,
    _one_dimensional_proof.RECIPE,
    _curse_of_dimensionality.RECIPE,
    _ssn_representation.RECIPE,
    *_splitting_noise.RECIPES,
    _soc_approximation_error.RECIPE,
    _naive_partitioning.RECIPE,
    *_partition_aggregation.RECIPES,
    _landscape.RECIPE,
    *_ablation.RECIPES,
    _ablation_vs_lee.RECIPE,
    _sparse_empirical.RECIPE,
    _patch_bands.RECIPE,
    _wasserstein.RECIPE,
    _soc_vs_bcop.RECIPE,
    *_trained_bounds.RECIPES,
    _attack_gallery.RECIPE,
    _heuristic_defenses.RECIPE,
    *_perceptual_training.RECIPES,
    _attack_overlap.RECIPE,
    _recoloring.RECIPE,
    _perceptibility.RECIPE,
  )
})  # fmt: skip
"""Name -> `Recipe`."""


def find(name: str, scale: str = 'quick'):
  """The `Recipe` of a name, which offers a scale.

  Args:
    name: a key of `RECIPES`.
    scale: one of `SCALES`.

  Returns:
    A `Recipe`.

  Raises:
    ValueError: for a name that has no recipe, or a scale that it does not offer.

  Example:
    >>> find('one-dimensional-proof').source
    'Cohen et al. 2019; Levine, Singla & Feizi 2019'
  """
  if name not in RECIPES:
    raise ValueError(f'`name` must be one of {", ".join(RECIPES)}; got {name!r}.')
  recipe = RECIPES[name]
  if scale not in recipe.scales:
    why = recipe.left_out.get(scale, 'others are not offered')
    raise ValueError(
      f'`scale` of {name} must be one of {", ".join(recipe.scales)}, got {scale!r}: {why}.'
    )
  return recipe


def reproduce(name: str, request: Request) -> Result:
  """Runs a recipe, once its data are known to be there.

  Args:
    name: a key of `RECIPES`.
    request: a `Request`.

  Returns:
    A `Result`, for `write` or `markdown`.

  Raises:
    ValueError: as `find`; for a data set that is not prepared, logs or weights that the recipe does
      not read or lacks, and whatever the recipe refuses.

  Example:
    >>> import pathlib
    >>> request = Request('quick', pathlib.Path('out'))
    >>> reproduce('curse-of-dimensionality', request).rows[0].number
    'median limit of any i.i.d. noise (Theorem 1), sigma 0.25, p = 2'
  """
  recipe = find(name, request.scale)
  if request.logs is not None and not recipe.reads_logs:
    readers = [each.name for each in RECIPES.values() if each.reads_logs]
    raise ValueError(f'`logs`: {name} reads none; {", ".join(readers)} do.')
  _check_weights(recipe, request)
  for dataset in recipe.scales[request.scale].datasets:
    if missing := _missing(dataset, request.data_dir):
      raise ValueError(f'{name} at scale {request.scale} needs {dataset}: {missing}.')
  return recipe.run(request)


def _check_weights(recipe, request):
  if request.scale in recipe.weights_at and request.weights is None:
    raise ValueError(
      f'{recipe.name} at scale {request.scale} attacks published networks: give `--weights DIR`, where '
      f'they lie.'
    )
  if request.weights is not None and request.scale not in recipe.weights_at:
    readers = [f'{each.name} at {", ".join(each.weights_at)}' for each in RECIPES.values() if each.weights_at]  # fmt: skip
    raise ValueError(
      f'`weights`: {recipe.name} at scale {request.scale} reads none; {"; ".join(readers)} does.'
    )


def listing(data_dir=None) -> str:
  """Each recipe with its source, data, cost at each scale or why there is none, and whether the data are there.

  Args:
    data_dir: TFDS directory, or None for its default.

  Returns:
    Lines of text.

  Example:
    >>> print(listing('nowhere').splitlines()[0])
    cohen-cifar10
  """
  lines = []
  for recipe in RECIPES.values():
    lines += [recipe.name, f'  {recipe.shows}', f'  source: {recipe.source}']
    on = 'no data set' if recipe.dataset == ARITHMETIC else recipe.dataset
    lines.append(f'  published on: {on}')
    for name, scale in recipe.scales.items():
      missing = [each for each in scale.datasets if _missing(each, data_dir)]
      there = f'missing: {", ".join(missing)}' if missing else 'data at hand'
      lines.append(f'  {name:<8} {scale.cost} (data: {_named(scale.datasets)}; {there})')
    lines += [f'  {name:<8} not offered: {why}' for name, why in recipe.left_out.items()]
  return '\n'.join(lines)


def _named(datasets):
  return ', '.join(datasets) or 'none'


def _missing(dataset, data_dir):
  """What to do about a data set that is not there, or ''."""
  if dataset in _READY_AT_ONCE or data.is_prepared(dataset, data_dir):
    return ''
  (row,) = (row for row in data.status(data_dir) if row.name == dataset)
  return f'it is not prepared ({row.remedy})'
