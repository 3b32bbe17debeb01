"""From certificates to accuracies, curves, tables and plots. Knows no method and needs no JAX."""

from certjax.report._accuracy import (
  abstention_rate,
  average_certified_radius,
  band,
  certified_accuracy,
  clean_accuracy,
  high_probability_accuracy,
  median_radius,
)
from certjax.report._attacked import (
  Column,
  load_attacked,
  read_attacks,
  threats_markdown,
  threats_summary,
  write_threats,
)
from certjax.report._compare import (
  Comparison,
  compare,
  compare_runs,
  comparison_markdown,
)
from certjax.report._grid import Shown, grid_pixels, plot_attacked
from certjax.report._human_scores import just_noticeable, two_alternatives
from certjax.report._latex import latex
from certjax.report._load import (
  load,
  load_all,
)
from certjax.report._pages import (
  Card,
  Example,
  chosen,
  outcomes,
  write_html,
  write_threats_html,
)
from certjax.report._panels import Curves, Line, Regions, plot_panels
from certjax.report._plot import plot
from certjax.report._run import Run
from certjax.report._spectrum import plot_spectra, write_spectra
from certjax.report._table import (
  Row,
  Table,
  csv,
  default_radii,
  markdown,
  table,
)
from certjax.report._threats import CALIBRATIONS, Calibration, uar, union_accuracy, unseen_mean
from certjax.report._tsv import (
  read_tsv,
  write_tsv,
)
from certjax.report._write import write

__all__ = [
  'CALIBRATIONS',
  'Calibration',
  'Card',
  'Column',
  'Comparison',
  'Curves',
  'Example',
  'Line',
  'Regions',
  'Row',
  'Run',
  'Shown',
  'Table',
  'abstention_rate',
  'average_certified_radius',
  'band',
  'certified_accuracy',
  'chosen',
  'clean_accuracy',
  'compare',
  'compare_runs',
  'comparison_markdown',
  'csv',
  'default_radii',
  'grid_pixels',
  'high_probability_accuracy',
  'just_noticeable',
  'latex',
  'load',
  'load_all',
  'load_attacked',
  'markdown',
  'median_radius',
  'outcomes',
  'plot',
  'plot_attacked',
  'plot_panels',
  'plot_spectra',
  'read_attacks',
  'read_tsv',
  'table',
  'threats_markdown',
  'threats_summary',
  'two_alternatives',
  'uar',
  'union_accuracy',
  'unseen_mean',
  'write',
  'write_html',
  'write_spectra',
  'write_threats',
  'write_threats_html',
  'write_tsv',
]
