"""`certjax report`: works where JAX is not installed."""

import pathlib

from certjax import configs, records
from certjax import report as reports
from certjax.cli import _parse, _progress, _stored


def report(arguments):
  """`certjax report RUN... [options]`."""
  config = _parse.parse(configs.Report, 'report', arguments)
  if not config.runs:
    raise ValueError('report on which runs? Give run directories, records.jsonl or TSV files.')
  if config.html and config.html.suffix not in ('.html', '.htm'):
    raise ValueError(f'`html` is a page: name it FILE.html, got {config.html}.')
  if config.threats or config.trained or config.grid:
    return _attacked(config)
  if config.compare and len(config.runs) != 2:
    raise ValueError(f'`--compare` takes exactly two runs, got {len(config.runs)}.')
  paths = [records.locate(path) for path in config.runs]
  for path in paths:
    _check_certified(path)
  out = config.out or _home(paths[0])
  runs = reports.load_all(paths)
  for path, run in zip(paths, runs, strict=True):
    _merge_or_warn(path, run)
  compare = runs if config.compare else None
  print(
    reports.write(
      runs,
      out,
      config.radii,
      compare=compare,
      high_probability=config.high_probability,
      latex=config.latex,
    )  # fmt: skip
  )
  if config.tsv:
    reports.write_tsv(config.tsv, runs[0])
  if config.html:
    _page(config, runs)
  print(f'written to {out}')


def _page(config, runs):
  """`certjax report --html FILE RUN...`."""
  examples, notes = _stored.examples(runs, config.data_dir)
  found = {run.name: configs.contract_of(run.header) for run in runs}
  cards, same = [], {}
  for name, card in found.items():
    same.setdefault(card, []).append(name)
  for card, names in same.items():
    if card is None:
      notes.append(f'{", ".join(names)}: no header, so that no contract card is known.')
    else:
      title = f'{", ".join(names)}: {card.title} ({card.method})'
      cards.append(reports.Card(title, configs.contract_rows(card)))
  reports.write_html(
    config.html, runs, config.radii, compare=runs if config.compare else None,
    high_probability=config.high_probability, cards=cards, examples=examples, notes=notes,
  )  # fmt: skip
  print(f'written to {config.html}')


def _attacked(config):
  """`certjax report --threats DIRECTORY...` and `--grid FILE`: what attacks did."""
  asked = 'threats' if config.threats else 'grid' if config.grid else 'trained'
  if config.trained and not config.threats:
    raise ValueError('`trained` says what `--threats` were seen in training: give both.')
  if config.compare or config.radii or config.high_probability or config.tsv or config.latex:
    raise ValueError(
      f'`{asked}` reads attacks: it has no radii, and no --compare, --tsv or --latex.'
    )
  if config.html and not config.threats:
    raise ValueError('`html` of attacks is that of `--threats`: give it too, or leave --html out.')
  if config.threats:
    _threats(config)
  if config.grid:
    _grid(config)


def _grid(config):
  """`certjax report --grid FILE DIRECTORY...`: images that each attack broke."""
  if config.num_images < 1:
    raise ValueError(f'`num_images` must be at least 1, got {config.num_images}.')
  if config.grid.suffix != '.png':
    raise ValueError(f'`grid` is a PNG: name it FILE.png, got {config.grid}.')
  stored = [one for directory in config.runs for one in _stored.find(directory)]
  shown = [_shown(one, config) for one in stored]
  reports.plot_attacked(shown, config.grid, num_images=config.num_images)
  print(f'written to {config.grid}')


def _shown(stored, config):
  """The `report.Shown` of one attack."""
  from certjax import data, evaluate

  title = f'{stored.attack}, {stored.norm} {stored.bound:g} ({stored.unit})'
  broken = evaluate.broken(stored.directory, config.num_images)
  if not len(broken.index):
    raise ValueError(
      f'{stored.directory}: the attack broke no image, and there is nothing to draw.'
    )
  images = _stored.originals(stored, broken, _stored.source_of(stored, config.data_dir))
  if images.labels.tolist() != broken.labels.tolist():
    raise ValueError(
      f'{stored.directory}: its images are not those of {stored.dataset[0]} here: give the --data-dir of '
      f'the attack.'
    )
  return reports.Shown(
    title, broken.index, broken.labels, broken.predict,
    data.to_float(images.images), broken.x_adv,
  )  # fmt: skip


def _threats(config):
  """A table of threats goes beside the first directory."""
  out = config.out or config.runs[0].resolve().parent
  print(reports.write_threats(config.runs, out, config.trained))
  if config.html:
    reports.write_threats_html(config.html, config.runs, config.trained)
    print(f'written to {config.html}')
  print(f'written to {out}')


def _check_certified(path):
  if not _is_file(path) and not records.exists(path):
    raise ValueError(f'{path} holds no {records.RECORDS} yet: run `certjax certify` there first.')


def _merge_or_warn(path, run):
  """Names what a run lacks; one that lacks nothing gets its shards merged into `records.jsonl`."""
  for problem in run.problems:
    _progress.warn(problem)
  if not run.problems and not _is_file(path):
    try:
      records.write_merged(path)
    except OSError as error:  # The report may go elsewhere, and needs no merged file.
      _progress.warn(f'{path}: not merged: {error.strerror}')


def _home(path):
  """A directory run gets its report itself; that of a file goes beside it."""
  if not isinstance(path, pathlib.Path):
    raise ValueError(f'`--out`: tables and plots of {path} need a local directory, name one.')
  return path.parent / f'{path.stem}-report' if _is_file(path) else path


def _is_file(path):
  """A missing path counts as a file: opening it says so."""
  return not path.is_dir() if isinstance(path, pathlib.Path) else path.name.endswith('.jsonl')
