r"""The table of a certification paper as LaTeX, for `\input` in a paper that loads booktabs.

The cells are those of the markdown, so both round and cut alike. What the certificates claim stands
below as comments: a caption is the author's own.
"""

from certjax.report._table import cells, claims

_ESCAPES = {
  '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
  '<': r'\textless{}', '>': r'\textgreater{}', '|': r'\textbar{}',
  **{special: f'\\{special}' for special in '{}$&#_%'},
}  # fmt: skip


def latex(table, *, high_probability=False) -> str:
  r"""A `Table` as a `tabular` of booktabs.

  Args:
    table: what `table` returned.
    high_probability: adds a row with the accuracies that hold with high probability.

  Returns:
    The text, which needs `\usepackage{booktabs}`.

  Example:
    >>> import numpy as np
    >>> from certjax.certify import certificate
    >>> from certjax.report import Run, table
    >>> one = np.array([1])
    >>> print(latex(table([Run('run_1', one, one, certificate(one, [0.5]))], [0, 0.25])))
    \begin{tabular}{lrrrrr}
      \toprule
      run & images & $r = 0$ & $r = 0.25$ & ACR & abstain \\
      \midrule
      run\_1 & 1 & 1.0000 & 1.0000 & 0.5000 & 0.0000 \\
      \bottomrule
    \end{tabular}
    % Each certificate holds for its image separately, with probability at least 1 - alpha over the sampled noise; that all of the table hold at once is not claimed.
    <BLANKLINE>
  """
  head, *rows = cells(table, high_probability=high_probability)
  head = [f'${name}$' if name.startswith('r = ') else name for name in head]
  body = [[escape(cell) for cell in row] for row in rows]
  lines = [
    rf'\begin{{tabular}}{{l{"r" * (len(head) - 1)}}}', r'  \toprule', _line(head),
    r'  \midrule', *map(_line, body), r'  \bottomrule', r'\end{tabular}',
    *(f'% {" ".join(claim.split())}' for claim in claims(table) if claim),
  ]  # fmt: skip
  return '\n'.join(lines) + '\n'


def escape(text) -> str:
  r"""Text that LaTeX sets as it stands, on one line.

  Example:
    >>> print(escape('50%_of\\{x}'))
    50\%\_of\textbackslash{}\{x\}
  """
  return ''.join(_ESCAPES.get(character, character) for character in ' '.join(text.split()))


def _line(row):
  return f'  {" & ".join(row)} \\\\'
