"""The perceptual study: which adversarial images do people see? A static page, a local endpoint, the analysis.

Knows no model and needs no JAX: images come in as arrays, with the distances that others measured.
"""

from certjax.study._analyse import analyse, answer_rows, wilson
from certjax.study._answers import parse_answers, read_answers
from certjax.study._build import ANSWERS, KEY, build, read_key
from certjax.study._mturk import external_question
from certjax.study._pairs import Condition, Pair, compose
from certjax.study._results import plot_study, study_markdown, write_study
from certjax.study._serve import make_server

__all__ = [
  'ANSWERS',
  'KEY',
  'Condition',
  'Pair',
  'analyse',
  'answer_rows',
  'build',
  'compose',
  'external_question',
  'make_server',
  'parse_answers',
  'plot_study',
  'read_answers',
  'read_key',
  'study_markdown',
  'wilson',
  'write_study',
]
