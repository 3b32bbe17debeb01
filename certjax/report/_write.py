"""The whole report of some runs in one directory."""

from pathlib import Path

from certjax.report._compare import compare_runs, comparison_markdown
from certjax.report._latex import latex as latex_of
from certjax.report._plot import plot
from certjax.report._table import csv, markdown, table


def write(runs, out_directory, radii=None, *, compare=None, high_probability=False, latex=None):
  """Writes `table.md`, `table.csv` and `curve.png`, and `comparison.md` where asked.

  Args:
    runs: a list of `Run` (see `load_all`).
    out_directory: created where missing.
    radii: float[R], by default `default_radii(runs)`.
    compare: two `Run`s of the same images, or None. Without `radii` they are compared up to their
      own largest radius, so that Holm's method does not pay for empty columns.
    high_probability: adds the high-probability accuracies to the markdown and to LaTeX.
    latex: a file that gets the table as LaTeX, or None.

  Returns:
    The markdown, that of the comparison included.

  Raises:
    ValueError: if the runs do not fit together.
    OSError: if a file cannot be written.

  Example:
    >>> import tempfile
    >>> import numpy as np
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run
    >>> run = Run('a', np.arange(2), np.array([3, 1]), certificate([3, 1], [0.5, 0.25]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   text = write([run], folder, [0.0, 0.5])
    ...   print(sorted(path.name for path in Path(folder).iterdir()))
    ['curve.png', 'table.csv', 'table.md']
  """
  summary = table(runs, radii)
  text = markdown(summary, high_probability=high_probability)
  compared = None
  if compare is not None:
    a, b = compare
    compared = comparison_markdown(compare_runs(a, b, radii), (a.name, b.name))
  out_directory = Path(out_directory)
  out_directory.mkdir(parents=True, exist_ok=True)
  (out_directory / 'table.md').write_text(text)
  (out_directory / 'table.csv').write_text(csv(summary))
  plot(runs, out_directory / 'curve.png')
  if latex is not None:
    Path(latex).write_text(latex_of(summary, high_probability=high_probability))
  if compared is None:
    return text
  (out_directory / 'comparison.md').write_text(compared)
  return f'{text}\n{compared}'
