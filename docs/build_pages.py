"""Fills what the code itself writes: contract cards, members of packages, reproduced tables; names what lies beside the site.

MkDocs calls the functions whose names begin with `on_`.
"""

import importlib
import pathlib
import re

from certjax import configs

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ROOT / 'docs' / 'pages'
REPRODUCED = ROOT / 'benchmarks' / 'results' / 'reproduce'
_MARK = re.compile(r'^<!-- (contracts|members|reproduced)(?:: (\S+))? -->$', re.MULTILINE)
_LINK = re.compile(r'\[([^\]]*)\]\((?!https?://|#)([^)#]*)(?:#[^)]*)?\)')
_LOADED = re.compile(
  r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"', re.IGNORECASE
)


def on_files(files, config):
  """Adds the figures of reproduced tables, which lie beside their results."""
  from mkdocs.structure.files import File  # The tests import this file without MkDocs.

  for path in sorted(REPRODUCED.glob('*.png')):
    name = f'{REPRODUCED.name}/{path.name}'
    files.append(File.generated(config, name, abs_src_path=str(path)))
  return files


def on_page_markdown(markdown, page, **_):
  """Replaces the marks of a page, and its links out of the site."""
  written = _MARK.sub(lambda mark: _WRITTEN[mark[1]](mark[2]), markdown)
  return named(written, page.file.src_uri)


def on_post_page(output, page, **_):
  """Refuses a page that loads anything from another host."""
  if loaded := _LOADED.search(output):
    raise ValueError(f'{page.file.src_uri} loads from elsewhere: {loaded[0]}')
  return output


def contracts(_=None) -> str:
  """All cards, a heading each, whose anchor is the method's name."""
  return '\n'.join(_card(name) for name in (*configs.METHODS, *configs.POISONING))


def named(markdown, source) -> str:
  """A link to a file of the repository that is no page works where the repository is read; in the site its path stands instead.

  Args:
    markdown: of a page.
    source: its path below docs/pages, from which its links start.
  """

  def link(match):
    text, target = match[1], (PAGES / source).parent / match[2]
    if target.resolve().is_relative_to(PAGES):
      return match[0]
    return f'{text} (`{target.resolve().relative_to(ROOT)}`)'

  return _LINK.sub(link, markdown)


def reproduced(_=None) -> str:
  """The page beside the results of `certjax reproduce`, without its title."""
  _, text = (REPRODUCED / 'README.md').read_text().split('\n', 1)
  return re.sub(r'(!\[[^\]]*\]\()', rf'\1{REPRODUCED.name}/', text)


def members(package) -> str:
  """A directive for each public function and class of a package; its constants are named."""
  module = importlib.import_module(package)
  names = public(module)
  made = [f'::: {path}\n' for name, path in names.items() if callable(getattr(module, name))]
  constants = [f'`{name}`' for name in names if not callable(getattr(module, name))]
  named = [f'Constants: {", ".join(constants)}.\n'] if constants else []
  return '\n'.join([*named, *made])


def public(module) -> dict:
  """Public name -> where it is written down; lazily loaded names at their home."""
  package = module.__name__
  if homes := getattr(module, '_HOME', None):
    return {name: f'{package}.{home}.{name}' for name, home in sorted(homes.items())}
  names = getattr(module, '__all__', None) or [
    name for name, value in vars(module).items()
    if not name.startswith('_') and getattr(value, '__module__', None) == package
  ]  # fmt: skip
  return {name: f'{package}.{name}' for name in names}


def _card(name):
  card = configs.contract(name)
  lines, before = [f'\n## {name}: {_plain(card.title)} {{ #{name} }}\n'], None
  for term, text in configs.contract_rows(card):
    if term == before:
      lines.append(f'    - {_plain(text)}')
    elif term == configs.TERMS['voids']:
      lines += [f'- **{term}**', f'    - {_plain(text)}']
    else:
      lines.append(f'- **{term}**: {_plain(text)}')
    before = term
  return '\n'.join(lines) + '\n'


def _plain(text):
  """A text whose signs markdown leaves alone."""
  return re.sub(r'([*_<|\[\]])', lambda sign: f'&#{ord(sign[0])};', text)


_WRITTEN = {'contracts': contracts, 'members': members, 'reproduced': reproduced}
