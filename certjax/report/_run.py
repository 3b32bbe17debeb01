"""One finished or unfinished run over a list of images, as the report reads it."""

from typing import NamedTuple

import numpy as np

from certjax.certify import Certificate


class Run(NamedTuple):
  """Certificates of a list of images, and what is known about how they came about.

  Attributes:
    name: what tables and legends call the run.
    index: int64[N], the images' indices in their data set, increasing.
    labels: int64[N], the true labels.
    certificate: a `Certificate` of arrays [N].
    seconds: float64[N], NaN where unknown; None if no time was recorded.
    header: the header of the records, or None. The report reads its keys `norm`, `unit`, `alpha`
      and `quantifier` ('exact' where nothing was sampled).
    problems: one line for each part of the run that is missing, see `records.problems`.
  """

  name: str
  index: np.ndarray
  labels: np.ndarray
  certificate: Certificate
  seconds: np.ndarray | None = None
  header: dict | None = None
  problems: tuple[str, ...] = ()


def common_setting(runs, key):
  """The value that the headers give for `key`, '' where none does.

  Raises:
    ValueError: if two runs give different values: their radii cannot share a table or an axis.
  """
  values = {run.name: run.header[key] for run in runs if run.header and run.header.get(key)}
  if len(set(values.values())) > 1:
    said = ', '.join(f'{name}: {value}' for name, value in values.items())
    raise ValueError(f'runs differ in `{key}` ({said}); report them one by one')
  return next(iter(values.values()), '')
