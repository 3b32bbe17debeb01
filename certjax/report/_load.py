"""One door for what a run may be on disk: records of certjax in however many files, or a log in
the field's TSV."""

from pathlib import Path

import numpy as np

from certjax import records
from certjax.certify import certificate
from certjax.report._run import Run
from certjax.report._tsv import read_tsv


def load(path, *, name=None):
  """Loads a run.

  The shards and segments of a directory are joined; what is missing is in `problems`.

  Args:
    path: a run's directory, local or remote, a file of records, or a TSV log.
    name: what to call it; the directory's or the file's name by default.

  Returns:
    A `Run`.

  Raises:
    ValueError: naming file and line, if the file is neither, or damaged before its last line.
    OSError: if it cannot be read.

  Example:
    >>> import tempfile
    >>> header, record = {'norm': 'l2'}, {'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   with records.writer(folder, header) as out:
    ...     out.append(record)
    ...   run = load(folder, name='a')
    >>> run.name, run.header['norm'], run.certificate.radius
    ('a', 'l2', array([0.5]))
  """
  path = records.locate(path)
  if not isinstance(path, Path) or path.is_dir() or _is_json(path):  # No logs in remote places.
    run = _from_records(path)
  else:
    run = read_tsv(path)
  return run if name is None else run._replace(name=name)


def load_all(paths):
  """Loads runs under distinct names: the last parts of their paths, as many as tell them apart.

  Args:
    paths: see `load`.

  Returns:
    A list of `Run`.

  Raises:
    ValueError: as `load`.
    OSError: as `load`.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   paths = [Path(folder) / name / 'certify' for name in ('gaussian', 'uniform')]
    ...   for path in paths:
    ...     with records.writer(path, {}) as out:
    ...       out.append({'index': 0, 'label': 3, 'predict': 3, 'radius': 0.5})
    ...   print([run.name for run in load_all(paths)])
    ['gaussian/certify', 'uniform/certify']
  """
  paths = [records.locate(path) for path in paths]
  runs = [load(path) for path in paths]
  parents = [_home(path).parents for path in paths]
  names = [run.name for run in runs]
  for depth in range(max((len(above) for above in parents), default=0)):
    if len(set(names)) == len(names):
      break
    names = [
      f'{above[depth].name}/{name}' if depth < len(above) and above[depth].name else name
      for above, name in zip(parents, names, strict=True)
    ]
  return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]


def _home(path):
  """What a run is named after: its directory, or the TSV file."""
  home = path.parent if path.name == records.RECORDS else path
  return home.resolve() if isinstance(path, Path) else home


def _is_json(path):
  with path.open('rb') as file:
    return file.read(1) == b'{' or path.name == records.RECORDS


def _from_records(path):
  header, entries = records.read(path)
  timing = records.read_timing(path)
  field = {
    key: [entry[key] for entry in entries] for key in ('index', 'label', 'predict', 'radius')
  }
  seconds = [timing.get(index, {}).get('seconds', np.nan) for index in field['index']]
  return Run(
    _home(path).name,
    np.array(field['index'], np.int64),
    np.array(field['label'], np.int64),
    certificate(np.array(field['predict'], np.int64), field['radius']),
    np.array(seconds, np.float64) if timing else None,
    header,
    () if path.name.endswith('.jsonl') else tuple(records.problems(path)),
  )
