"""From votes, margins and bounds to certificates. Names load lazily: `report` reads
certificates where JAX is not installed. What floating point leaves of a proof: BUILD.md, "What a
certificate guarantees in floating point"."""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:  # The same names for checkers and editors: tests/lazy_names_test.py.
  from certjax.certify._aggregation import aggregate, aggregate_counts
  from certjax.certify._best import best_of
  from certjax.certify._boundaries import boundary
  from certjax.certify._boundary_dp import Boundary, boundary_error
  from certjax.certify._bounded import Bounded, bounded
  from certjax.certify._certificate import ABSTAIN, Certificate, certificate
  from certjax.certify._confidence import (
    clopper_pearson,
    clopper_pearson_upper,
    predict_p_value,
    randomized_clopper_pearson,
  )
  from certjax.certify._confidence_sequence import confidence_sequence, tolerance_met
  from certjax.certify._curvature import curvature_margin
  from certjax.certify._curvature_method import Curved, crc
  from certjax.certify._double_masking import double_masking_from_votes
  from certjax.certify._engine import Work, once, run
  from certjax.certify._enumerated import (
    check_views,
    enumerated,
    enumerated_counts,
    from_counts,
    tallied,
    views_program,
  )
  from certjax.certify._finite_aggregation import finite_aggregation
  from certjax.certify._lipschitz import Margin, lipschitz
  from certjax.certify._margin import margin
  from certjax.certify._masked import Masked, masked
  from certjax.certify._masking import cells_met, patch_from_clipping, patch_from_masking
  from certjax.certify._mean import mean_lower_bound, mean_lower_bound_from_sums, mean_upper_bound
  from certjax.certify._patch import patch_ibp, sparse_ibp
  from certjax.certify._patch_votes import (
    patch_from_counts,
    patch_from_places,
    patch_from_votes,
    windows_at_places,
    windows_met,
  )
  from certjax.certify._program import Program, evaluate, outside
  from certjax.certify._randomized import (
    ESTIMATION,
    PREDICTION,
    SELECTION,
    check_num_samples,
    check_predict_samples,
    from_votes,
    label_from_votes,
    largest_radius,
    predict,
    predict_votes,
    sampled,
    sampled_votes,
    smoothing_program,
  )
  from certjax.certify._run_off import run_off_budget, run_off_election
  from certjax.certify._scores import confidence, confidence_radius, score_histogram, shifted_mean
  from certjax.certify._sequential import (
    Decision,
    SequentialRule,
    probability_of_radius,
    sequential,
    sequential_rule,
  )
  from certjax.certify._votes import votes

__all__ = [
  'ABSTAIN',
  'Boundary',
  'Bounded',
  'Certificate',
  'Curved',
  'Decision',
  'ESTIMATION',
  'Margin',
  'Masked',
  'PREDICTION',
  'Program',
  'SELECTION',
  'SequentialRule',
  'Work',
  'aggregate',
  'aggregate_counts',
  'best_of',
  'boundary',
  'boundary_error',
  'bounded',
  'cells_met',
  'certificate',
  'check_num_samples',
  'check_predict_samples',
  'check_views',
  'clopper_pearson',
  'clopper_pearson_upper',
  'confidence',
  'confidence_radius',
  'confidence_sequence',
  'crc',
  'curvature_margin',
  'double_masking_from_votes',
  'enumerated',
  'enumerated_counts',
  'evaluate',
  'finite_aggregation',
  'from_counts',
  'from_votes',
  'label_from_votes',
  'largest_radius',
  'lipschitz',
  'margin',
  'masked',
  'mean_lower_bound',
  'mean_lower_bound_from_sums',
  'mean_upper_bound',
  'once',
  'outside',
  'patch_from_clipping',
  'patch_from_counts',
  'patch_from_masking',
  'patch_from_places',
  'patch_from_votes',
  'patch_ibp',
  'predict',
  'predict_p_value',
  'predict_votes',
  'probability_of_radius',
  'randomized_clopper_pearson',
  'run',
  'run_off_budget',
  'run_off_election',
  'sampled',
  'sampled_votes',
  'score_histogram',
  'sequential',
  'sequential_rule',
  'shifted_mean',
  'smoothing_program',
  'sparse_ibp',
  'tallied',
  'tolerance_met',
  'views_program',
  'votes',
  'windows_at_places',
  'windows_met',
]


def __getattr__(name):
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from importlib import import_module

  return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)


def __dir__():
  return sorted(_HOME)
