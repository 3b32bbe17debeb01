"""One self-contained page: what it is made of. No script, no network, no file beside it.

A text is escaped where it becomes HTML, in this file alone: the functions here take plain texts, and give pieces of
a page (`Html`) that need no further care.
"""

import base64
import html
import io
import json
import re
from typing import NamedTuple

import numpy as np


class Html(NamedTuple):
  """A piece of a page, escaped: `text` is HTML."""

  text: str


class Section(NamedTuple):
  """A heading and what stands below it: `title` a text, `pieces` a list of `Html`."""

  title: str
  pieces: list


def page(title, summary, sections) -> str:
  """A whole page.

  Args:
    title: of the page.
    summary: a sentence below the title.
    sections: a list of `Section`; those without pieces are left out.

  Returns:
    The HTML.

  Example:
    >>> '<h1>a &lt; b</h1>' in page('a < b', 'Nothing.', [])
    True
  """
  sections = [section for section in sections if section.pieces]
  links = ''.join(
    f'<li><a href="#part-{i}">{escaped(section.title)}</a></li>'
    for i, section in enumerate(sections)
  )
  body = ''.join(_section(i, section) for i, section in enumerate(sections))
  return (
    f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{_META}\n<title>{escaped(title)}</title>\n'
    f'<style>{_STYLE}</style>\n</head>\n<body>\n<header><h1>{escaped(title)}</h1><p>{escaped(summary)}</p></header>\n'
    f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n</body>\n</html>\n'
  )


def escaped(text) -> str:
  """A text as HTML, quotes included.

  Example:
    >>> escaped('<b> & "c"')
    '&lt;b&gt; &amp; &quot;c&quot;'
  """
  return html.escape(str(text), quote=True)


def paragraph(text) -> Html:
  """A paragraph of plain text."""
  return Html(f'<p>{escaped(text)}</p>\n')


def details(title, text) -> Html:
  """A text that unfolds."""
  return Html(f'<details><summary>{escaped(title)}</summary><p>{escaped(text)}</p></details>\n')


def table(caption, head, rows) -> Html:
  """A table whose first column names the rows.

  Args:
    caption: what it shows.
    head: texts of the columns.
    rows: lists of texts.

  Returns:
    The table, in a box that scrolls where the screen is narrow.

  Example:
    >>> '<th scope="row">a</th><td>1</td>' in table('t', ['run', 'N'], [['a', 1]]).text
    True
  """
  columns = ''.join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
  lines = ''.join(
    f'<tr><th scope="row">{escaped(row[0])}</th>'
    + ''.join(f'<td>{escaped(cell)}</td>' for cell in row[1:])
    + '</tr>\n'
    for row in rows
  )
  return Html(
    f'<div class="wide" role="region" aria-label="{escaped(caption)}" tabindex="0"><table>'
    f'<caption>{escaped(caption)}</caption><thead><tr>{columns}</tr></thead>\n<tbody>{lines}</tbody></table></div>\n'
  )


def from_markdown(text, *captions) -> list:
  r"""Tables and paragraphs of the markdown that this room writes, number by number as they stand there.

  Args:
    text: pipe tables, a cell's own pipes as `\|`, and paragraphs.
    captions: of its tables in their order; the last one is that of all others too.

  Returns:
    A list of `Html`.

  Example:
    >>> [piece.text[:4] for piece in from_markdown('| a |\n| --- |\n| 1 |\n\nIt is 1.', 'c')]
    ['<div', '<p>I']
  """
  pieces, rows, left = [], [], list(captions)
  for line in [*text.splitlines(), '']:
    if line.startswith('|'):
      rows.append([cell.strip().replace(r'\|', '|') for cell in _CELL.split(line.strip())[1:-1]])
      continue
    if rows:
      head, _, *body = rows
      pieces.append(table(left.pop(0) if len(left) > 1 else left[0], head, body))
      rows = []
    if line.strip():
      pieces.append(paragraph(line.strip()))
  return pieces


def terms(title, rows) -> Html:
  """A card of terms and what is said about them, as `(term, text)` pairs; equal terms share one entry."""
  pieces, before = [], None
  for term, text in rows:
    if term != before:
      pieces.append(f'<dt>{escaped(term)}</dt>')
    pieces.append(f'<dd>{escaped(text)}</dd>\n')
    before = term
  return Html(
    f'<article class="card"><h3>{escaped(title)}</h3><dl>{"".join(pieces)}</dl></article>\n'
  )


def settings(caption, header) -> Html:
  """The header of a run, nested names joined by dots."""
  made = table(caption, ['setting', 'value'], list(_flat(header)))
  return Html(made.text.replace('<table>', '<table class="text">', 1))


def figures(rows) -> Html:
  """Images with captions, side by side.

  Args:
    rows: (uint8[H, W, C], what a reader who cannot see it is told, caption), C = 1 or 3.
  """
  items = ''.join(
    f'<li><figure><img src="{png(image)}" alt="{escaped(alt)}" width="112" height="{_height(image)}">'
    f'<figcaption>{escaped(caption)}</figcaption></figure></li>\n'
    for image, alt, caption in rows
  )
  return Html(f'<ul class="images">{items}</ul>\n')


def png(image) -> str:
  """A uint8[H, W, C] image as a data: address, pixel by pixel."""
  from PIL import Image

  image = np.asarray(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
    raise ValueError(
      f'`image` must be uint8[H, W, C] with 1 or 3 channels, got {image.dtype}{list(image.shape)}.'
    )
  file = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format='PNG')
  return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'


def _section(i, section):
  pieces = ''.join(piece.text for piece in section.pieces)
  return f'<section aria-labelledby="part-{i}">\n<h2 id="part-{i}">{escaped(section.title)}</h2>\n{pieces}</section>\n'


def _flat(value, name=''):
  if isinstance(value, dict) and (value or not name):
    for key, inner in value.items():
      yield from _flat(inner, f'{name}.{key}' if name else str(key))
  else:
    yield [name, value if isinstance(value, str) else json.dumps(value)]


def _height(image):
  return round(112 * image.shape[0] / image.shape[1])


_CELL = re.compile(r'(?<!\\)\|')
_META = (
  '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
  '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
  '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'; img-src data:">'
)
_STYLE = """
:root { --text: #1b1b1b; --page: #fff; --quiet: #595959; --line: #c9c9c9; --shade: #f3f3f3; --link: #00528a;
  --c0: #0072b2; --c1: #b34a00; --c2: #00785a; --c3: #a8457e; --c4: #8a6100; --c5: #0b7fb5; --c6: #000; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececec; --page: #161616; --quiet: #b3b3b3; --line: #4d4d4d; --shade: #242424; --link: #7cc4ff;
    --c0: #56b4e9; --c1: #ff9a4d; --c2: #35c79c; --c3: #eb9ccb; --c4: #e6b13e; --c5: #9ad5f5; --c6: #fff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
a { color: var(--link); }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
.wide:focus-visible, summary:focus-visible, a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); padding-bottom: .25rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { text-align: left; }
thead th { background: var(--shade); white-space: nowrap; }
tbody th { font-weight: 600; }
.text th, .text td { text-align: left; overflow-wrap: anywhere; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: 0 1rem 1rem; margin: 1rem 0; background: var(--shade); }
dl { margin: 0; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0 0 .2rem 1rem; }
.images { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 7rem; }
.images img { image-rendering: pixelated; border: 1px solid var(--line); max-width: 100%; }
figcaption { font-size: .85rem; color: var(--quiet); }
svg { width: 100%; height: auto; max-width: 50rem; }
svg text { fill: var(--text); font: 13px system-ui, sans-serif; }
svg .grid { stroke: var(--line); stroke-width: 1; }
.key { list-style: none; padding: 0; }
.key svg { width: 2.5rem; height: .8rem; margin-right: .5rem; }
"""
