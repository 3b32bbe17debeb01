"""What every benchmark shares: interleaved pairs, an interval for the median, a result card."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import numpy as np
from scipy import stats

ELSEWHERE = 'CERTJAX_BENCHMARK_RESULTS'  # Names another directory: benchmarks/cards.py run.
RESULTS = pathlib.Path(os.environ.get(ELSEWHERE) or pathlib.Path(__file__).parent / 'results')


def seconds(run) -> float:
  """Wall time of one call; `run` must block until its result is there."""
  begun = time.perf_counter()
  run()
  return time.perf_counter() - begun


def interleaved(runs, *, pairs=20):
  """Times several functions in turn, so that drifts of the machine hit all alike.

  Args:
    runs: dict name -> function that blocks; each is warmed up once.
    pairs: rounds; the order alternates.

  Returns:
    dict name -> float64[pairs] seconds.
  """
  for run in runs.values():
    run()
  times = {name: [] for name in runs}
  for turn in range(pairs):
    for name in list(runs)[:: 1 if turn % 2 else -1]:
      times[name].append(seconds(runs[name]))
  return {name: np.array(values) for name, values in times.items()}


def median_interval(values, *, level=0.95):
  """(median, lower, upper): the distribution-free interval of order statistics.

  Example:
    >>> median_interval(np.arange(21.0))
    (10.0, 5.0, 15.0)
  """
  ordered, n = np.sort(values), len(values)
  rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))
  return float(np.median(ordered)), float(ordered[rank]), float(ordered[n - 1 - rank])


def write_card(name, question, rows, **more):
  """Writes benchmarks/results/NAME.json and returns its path."""
  card = {
    'question': question,
    'command': _command(),
    'date': datetime.date.today().isoformat(),
    'hardware': hardware(),
    'versions': versions(),
    **more,
    'rows': rows,
  }
  RESULTS.mkdir(exist_ok=True)
  path = RESULTS / f'{name}.json'
  path.write_text(json.dumps(card, indent=2) + '\n')
  return path


def _command() -> str:
  """The command line, without places that are this machine's own."""
  arguments = ['DIR' if os.path.isabs(argument) else argument for argument in sys.argv[1:]]
  return ' '.join(['python', f'benchmarks/{pathlib.Path(sys.argv[0]).name}', *arguments])


def hardware() -> dict:
  """CPU model, cores, and the accelerator where there is one."""
  model = platform.processor()
  if pathlib.Path('/proc/cpuinfo').exists():
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    model = next((line.split(':')[1].strip() for line in lines if 'model name' in line), model)
  import jax

  return {'cpu': model, 'cores': os.cpu_count(), 'device': jax.devices()[0].device_kind}


def versions() -> dict:
  """What the figures depend on."""
  import jax
  import jaxlib

  import certjax

  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True)
  return {
    'certjax': certjax.__version__,
    'commit': commit.stdout.strip(),
    'jax': jax.__version__,
    'jaxlib': jaxlib.__version__,
    'numpy': np.__version__,
    'python': platform.python_version(),
  }


def markdown(rows) -> str:
  """Rows of one kind as a markdown table."""
  columns = list(rows[0])
  lines = [
    columns,
    ['---'] * len(columns),
    *([_cell(row[name]) for name in columns] for row in rows),
  ]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def print_table(rows):
  """Prints what `markdown` makes."""
  print(markdown(rows))


def _cell(value):
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def command(*arguments):
  """Runs one `certjax` command; a failure ends the benchmark."""
  from certjax.cli import main

  if code := main([str(argument) for argument in arguments]):
    raise SystemExit(code)


def certified_rows(directories, radii, out, *, trained=None):
  """(table as markdown, rows of a card) of finished certification runs; plot and tables in `out`.

  `trained` is the training run of all, where each was not certified in its own directory.

  Seconds are left out where runs are compared: they tell what else the machine did meanwhile.
  """
  from certjax import records, report

  runs = [run._replace(seconds=None) for run in report.load_all(directories)]
  text = report.write(runs, out, radii)
  rows = []
  for run, directory in zip(runs, directories, strict=True):
    header, _ = records.read(directory)
    accuracies = report.certified_accuracy(run.certificate, run.labels, radii)
    metrics = (pathlib.Path(trained or directory) / 'metrics.jsonl').read_text().splitlines()
    rows.append(
      {
        'run': run.name,
        'certified_accuracy': dict(zip(map(str, radii), accuracies.tolist(), strict=True)),
        'average_certified_radius': float(
          report.average_certified_radius(run.certificate, run.labels)
        ),
        'abstention_rate': float(report.abstention_rate(run.certificate)),
        'training': json.loads(metrics[-1]),
        'weights_sha256': header['weights_sha256'],
        'config': header['config'],
      }
    )
  return text.split('\n\n')[0], rows
