"""Docstrings as the site needs them: formulas become code, and an example is a section."""

import re

import griffe

_SECTION = re.compile(r'^(Args|Returns|Raises|Yields|Attributes|Example|References):$')


class Formulas(griffe.Extension):
  """Rewrites each docstring when its object is loaded."""

  def on_object(self, *, obj, **_):
    if obj.docstring:
      obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text) -> str:
  """A docstring with its indented paragraphs indented as code, and `Example:` as `Examples:`."""
  lines, inside = [], False
  for line in text.splitlines():
    inside = inside or bool(_SECTION.match(line))
    if line == 'Example:':
      line = 'Examples:'
    lines.append(f'  {line}' if not inside and line.startswith('  ') else line)
  return '\n'.join(lines)
