"""From votes, margins and bounds to certificates. Names load lazily: `report` reads
certificates where JAX is not installed."""

_HOME = {
  'ABSTAIN': '_certificate',
  'Certificate': '_certificate',
  'certificate': '_certificate',
  'clopper_pearson': '_confidence',
  'clopper_pearson_upper': '_confidence',
  'predict_p_value': '_confidence',
  'randomized_clopper_pearson': '_confidence',
  'enumerated': '_enumerated',
  'enumerated_counts': '_enumerated',
  'from_counts': '_enumerated',
  'mean_lower_bound': '_mean',
  'mean_lower_bound_from_sums': '_mean',
  'mean_upper_bound': '_mean',
  'confidence': '_scores',
  'confidence_radius': '_scores',
  'score_histogram': '_scores',
  'shifted_mean': '_scores',
  'check_num_samples': '_randomized',
  'check_predict_samples': '_randomized',
  'from_votes': '_randomized',
  'label_from_votes': '_randomized',
  'largest_radius': '_randomized',
  'sampled': '_randomized',
  'sampled_votes': '_randomized',
  'predict': '_randomized',
  'predict_votes': '_randomized',
  'votes': '_votes',
}

__all__ = list(_HOME)


def __getattr__(name):
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from importlib import import_module

  return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__():
  return sorted(_HOME)
