"""The lecture's tables made again: what came out, where, when, and in how much time.

    python benchmarks/reproduced.py run --scale quick --out DIR [NAME ...]   # all of that scale, or those named
    python benchmarks/reproduced.py write                                    # the page from the results
    python benchmarks/reproduced.py check                                    # what is wrong with either

`run` passes --data-dir, --logs and --weights on to `certjax reproduce`, continues what was begun
under --out, and keeps of each recipe its cards, its table and its figure in
benchmarks/results/reproduce. A recipe that fails is named at the end, and does not stop the others.
"""

import argparse
import datetime
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import common

FOLDER = common.RESULTS / 'reproduce'
PAGE = FOLDER / 'README.md'
FIELDS = ('recipe', 'scale', 'command', 'date', 'hardware', 'versions', 'seconds', 'cpu_seconds', 'cards', 'table')  # fmt: skip
_PUBLISHED = pathlib.Path(__file__).parent.parent / 'certjax' / 'reproduce' / 'published.json'
_PLACES = ('--data-dir', '--logs', '--weights')


def run(names, scale, out, places) -> list:
  """Runs recipes one after another; returns the names of those that failed."""
  failed = []
  for name in names:
    directory = out / f'{name}-{scale}'
    words = ['reproduce', name, '--scale', scale, '--out', str(directory), *places]
    print('certjax', *words, flush=True)
    begun, used = time.perf_counter(), _children()
    if subprocess.run([sys.executable, '-m', 'certjax', *words]).returncode:
      failed.append(name)
      continue
    keep(name, scale, directory, time.perf_counter() - begun, _children() - used)
  return failed


def keep(name, scale, directory, seconds, cpu_seconds):
  """Writes what a finished recipe left in `directory` into the results."""
  cards = [json.loads(path.read_text()) for path in sorted((directory / 'cards').glob('*.json'))]
  FOLDER.mkdir(parents=True, exist_ok=True)
  kept = {
    'recipe': name, 'scale': scale, 'command': cards[0]['command'],
    'date': datetime.date.today().isoformat(),
    'hardware': common.hardware(), 'versions': common.versions(),
    'seconds': round(seconds, 1), 'cpu_seconds': round(cpu_seconds, 1),
    'table': (directory / 'table.md').read_text(), 'cards': cards,
  }  # fmt: skip
  (FOLDER / f'{name}-{scale}.json').write_text(json.dumps(kept, indent=1) + '\n')
  if (figure := directory / 'figure.png').exists():
    shutil.copyfile(figure, FOLDER / f'{name}-{scale}.png')


def page(results, shows, has_figure) -> str:
  """The page of all results, as markdown.

  Args:
    results: dicts as `keep` writes them.
    shows: name -> what the recipe shows, one line.
    has_figure: (NAME-SCALE) -> whether NAME-SCALE.png lies beside the page.
  """
  lines = [
    '# The tables and figures of the lecture, made again\n',
    'Published numbers and ours, one section a recipe of `certjax reproduce`. Each row says its data set: a '
    'run on digits beside a number on ImageNet stands there as what it is, and "compared" says whether the '
    'two may be compared at all. This page is written by `python benchmarks/reproduced.py write` from the '
    'files beside it.\n',
    '| recipe | what it shows | scale | wall, s | CPU, s | agree | differ | another setting |',
    '| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |',
  ]
  for result in results:
    verdicts = [card['compared'] for card in result['cards']]
    counts = ' | '.join(str(verdicts.count(v)) for v in ('agrees', 'differs', 'another setting'))
    lines.append(
      f'| [{result["recipe"]}](#{_title(result)}) | {shows[result["recipe"]]} | {result["scale"]} '
      f'| {result["seconds"]:.0f} | {result["cpu_seconds"]:.0f} | {counts} |'
    )
  for result in results:
    title, where = _title(result), result['hardware']
    lines += [
      f'\n## {title}\n',
      f'`{result["command"]}`: {result["date"]}, {where["cpu"]}, {where["cores"]} cores, {where["device"]}; '
      f'certjax at {result["versions"]["commit"]}, JAX {result["versions"]["jax"]}.\n',
      result['table'].rstrip(),
    ]
    if has_figure(title):
      lines.append(f'\n![{result["recipe"]} at the scale {result["scale"]}]({title}.png)')
  return '\n'.join(lines) + '\n'


def load() -> list:
  """All results, by name, quick before reduced before full."""
  from certjax import reproduce

  order = list(reproduce.RECIPES)
  results = [json.loads(path.read_text()) for path in FOLDER.glob('*.json')]
  key = lambda result: (order.index(result['recipe']), reproduce.SCALES.index(result['scale']))
  return sorted(results, key=key)


def written() -> str:
  """The page as it should be."""
  from certjax import reproduce

  shows = {name: recipe.shows for name, recipe in reproduce.RECIPES.items()}
  return page(load(), shows, lambda title: (FOLDER / f'{title}.png').exists())


def problems() -> list:
  """Everything that is wrong, as lines: missing recipes, stale published numbers, a stale page."""
  from certjax import reproduce

  found, results = [], {_title(result): result for result in load()}
  for name, recipe in reproduce.RECIPES.items():
    if 'quick' in recipe.scales and f'{name}-quick' not in results:
      found.append(f'{name} has no result of its quick scale')
  known = {
    (table['table'], table['setting'], value)
    for table in json.loads(_PUBLISHED.read_text()).values() for value in table['values'].values()
  }  # fmt: skip
  for title, result in results.items():
    if missing := [field for field in FIELDS if not result.get(field)]:
      found.append(f'{title}: {", ".join(missing)} missing or empty')
    for card in result['cards']:
      there = card['published']
      if there and (there['table'], there['setting'], there['value']) not in known:
        found.append(f'{title}: {card["number"]}: not in published.json: {there["value"]}')
  if not PAGE.exists() or PAGE.read_text() != written():
    found.append(f'{PAGE.name} is stale: python benchmarks/reproduced.py write')
  return found


def main(argv=None) -> int:
  from certjax import reproduce

  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  actions = parser.add_subparsers(dest='action', required=True)
  running = actions.add_parser('run', help='run recipes and keep what they find')
  running.add_argument('names', nargs='*', metavar='NAME')
  running.add_argument('--scale', choices=reproduce.SCALES, default='quick')
  running.add_argument('--out', type=pathlib.Path, required=True)
  for place in _PLACES:
    running.add_argument(place)
  actions.add_parser('write', help='the page from the results')
  actions.add_parser('check', help='what is wrong')
  arguments = parser.parse_args(argv)
  if arguments.action == 'run':
    names = arguments.names or [
      n for n, r in reproduce.RECIPES.items() if arguments.scale in r.scales
    ]
    places = [
      word for place in _PLACES if (path := getattr(arguments, place[2:].replace('-', '_')))
      for word in (place, path)
    ]  # fmt: skip
    if failed := run(names, arguments.scale, arguments.out, places):
      print('failed:', ', '.join(failed))
      return 1
    return 0
  if arguments.action == 'write':
    PAGE.write_text(written())
  found = problems()
  print('\n'.join(found) or 'every recipe has its result, and the page shows them')
  return 1 if found else 0


def _title(result):
  return f'{result["recipe"]}-{result["scale"]}'


def _children():
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


if __name__ == '__main__':
  sys.exit(main())
