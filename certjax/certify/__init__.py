"""From votes, margins and bounds to certificates. Names load lazily: `report` reads
certificates where JAX is not installed. What floating point leaves of a proof: BUILD.md, "What a
certificate guarantees in floating point"."""

_HOME = {
  'ABSTAIN': '_certificate',
  'Boundary': '_boundary_dp',
  'Certificate': '_certificate',
  'aggregate': '_aggregation',
  'aggregate_counts': '_aggregation',
  'finite_aggregation': '_finite_aggregation',
  'run_off_budget': '_run_off',
  'run_off_election': '_run_off',
  'best_of': '_best',
  'boundary': '_boundaries',
  'boundary_error': '_boundary_dp',
  'certificate': '_certificate',
  'clopper_pearson': '_confidence',
  'clopper_pearson_upper': '_confidence',
  'confidence_sequence': '_confidence_sequence',
  'tolerance_met': '_confidence_sequence',
  'patch_from_counts': '_patch_votes',
  'patch_from_votes': '_patch_votes',
  'patch_from_places': '_patch_votes',
  'windows_at_places': '_patch_votes',
  'windows_met': '_patch_votes',
  'cells_met': '_masking',
  'patch_from_clipping': '_masking',
  'patch_from_masking': '_masking',
  'double_masking_from_votes': '_double_masking',
  'predict_p_value': '_confidence',
  'randomized_clopper_pearson': '_confidence',
  'enumerated': '_enumerated',
  'enumerated_counts': '_enumerated',
  'check_views': '_enumerated',
  'views_program': '_enumerated',
  'Program': '_program',
  'evaluate': '_program',
  'outside': '_program',
  'Work': '_engine',
  'once': '_engine',
  'run': '_engine',
  'from_counts': '_enumerated',
  'tallied': '_enumerated',
  'margin': '_margin',
  'curvature_margin': '_curvature',
  'Margin': '_lipschitz',
  'Curved': '_curvature_method',
  'crc': '_curvature_method',
  'Masked': '_masked',
  'masked': '_masked',
  'Bounded': '_bounded',
  'bounded': '_bounded',
  'patch_ibp': '_patch',
  'sparse_ibp': '_patch',
  'lipschitz': '_lipschitz',
  'mean_lower_bound': '_mean',
  'mean_lower_bound_from_sums': '_mean',
  'mean_upper_bound': '_mean',
  'Decision': '_sequential',
  'SequentialRule': '_sequential',
  'probability_of_radius': '_sequential',
  'sequential': '_sequential',
  'sequential_rule': '_sequential',
  'confidence': '_scores',
  'confidence_radius': '_scores',
  'score_histogram': '_scores',
  'shifted_mean': '_scores',
  'ESTIMATION': '_randomized',
  'PREDICTION': '_randomized',
  'SELECTION': '_randomized',
  'smoothing_program': '_randomized',
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
