"""Runs notebooks at their full size and keeps their outputs in them, so that they read without being run.

    python colabs/execute.py [NOTEBOOK ...]        # by default all
    python colabs/execute.py --check               # whose outputs are not those of their code?

What the code was is kept as a SHA-256 in the notebook's metadata: code that changes asks for a new run.
"""

import argparse
import datetime
import hashlib
import pathlib
import re
import sys
import tempfile
import time

import nbformat

NOTEBOOKS = sorted(pathlib.Path(__file__).parent.glob('*.ipynb'))
_ADDRESS, _TEMPORARY = re.compile(r' at 0x[0-9a-f]+'), re.compile(r'/tmp/tmp\w+')
_PLACES = re.compile(r'/(?:tmp|root|home|work|usr|var)/[\w./-]*')


def fingerprint(notebook) -> str:
  """SHA-256 of the code of a notebook."""
  code = [cell.source for cell in notebook.cells if cell.cell_type == 'code']
  return hashlib.sha256('\0'.join(code).encode()).hexdigest()


def execute(path):
  """Runs one notebook from top to bottom and writes it back with its outputs.

  Raises:
    nbclient.exceptions.CellExecutionError: if a cell fails; the file stays as it was.
    ValueError: if an output names a place of this machine.
  """
  import jax
  from nbclient import NotebookClient

  notebook = nbformat.read(path, as_version=4)
  begun = time.perf_counter()
  with tempfile.TemporaryDirectory() as scratch:
    client = NotebookClient(
      notebook, timeout=3600, kernel_name='python3', resources={'metadata': {'path': scratch}}
    )
    client.execute()
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      cell.metadata.pop('execution', None)  # When it ran: of no use to a reader.
      cell.outputs = [*map(_without_addresses, _joined(cell.outputs))]
  if places := _PLACES.findall(str([cell.get('outputs') for cell in notebook.cells])):
    raise ValueError(f'{path.name}: an output names {places[0]}: print no place of this machine.')
  notebook.metadata['certjax'] = {
    'code': fingerprint(notebook),
    'date': datetime.date.today().isoformat(),
    'jax': jax.__version__,
    'seconds': round(time.perf_counter() - begun),
  }
  nbformat.write(notebook, path)


def problems(path) -> list:
  """What is wrong with the outputs of a notebook, as lines."""
  notebook = nbformat.read(path, as_version=4)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  outputs = [output for cell in code for output in cell.outputs]
  found = []
  if notebook.metadata.get('certjax', {}).get('code') != fingerprint(notebook):
    found.append('its outputs are of other code: python colabs/execute.py')
  if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
    found.append('it was not run once, from top to bottom')
  if any(output.output_type == 'error' for output in outputs):
    found.append('it ends in an error')
  if not any('image/png' in output.get('data', {}) for output in code[-1].outputs):
    found.append('its last cell of code shows no figure')
  return [f'{path.name}: {line}' for line in found]


def main(argv=None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('notebooks', nargs='*', type=pathlib.Path, default=NOTEBOOKS)
  parser.add_argument('--check', action='store_true')
  arguments = parser.parse_args(argv)
  if not arguments.check:
    for path in arguments.notebooks:
      begun = time.perf_counter()
      execute(path)
      print(f'{path.name}: {time.perf_counter() - begun:.0f} s', flush=True)
  found = [line for path in arguments.notebooks for line in problems(path)]
  print('\n'.join(found) or 'the outputs are those of the code')
  return 1 if found else 0


def _joined(outputs):
  """Streams that follow one another as one, without warnings and progress (stderr)."""
  kept = []
  for output in outputs:
    if output.output_type == 'stream' and output.name == 'stderr':
      continue
    if kept and output.output_type == kept[-1].output_type == 'stream':
      kept[-1].text += output.text
    else:
      kept.append(output)
  return kept


def _without_addresses(output):
  """An output without what differs from run to run: addresses of objects, temporary directories."""
  texts = output.get('data', {}) if 'data' in output else output
  for kind in ('text/plain', 'text'):
    if kind in texts:
      texts[kind] = _TEMPORARY.sub('DIR', _ADDRESS.sub('', texts[kind]))
  return output


if __name__ == '__main__':
  sys.exit(main())
