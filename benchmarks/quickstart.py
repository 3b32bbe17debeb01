"""The quickstart as a new user runs it, timed from the first import on: the README's first table.

    python benchmarks/quickstart.py

Runs `certjax quickstart` in a process of its own, with an empty TFDS directory and no compiled
programs at hand, and writes a card.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import common

from certjax import report


def main():
  with tempfile.TemporaryDirectory() as scratch:
    out = pathlib.Path(scratch) / 'certjax-quickstart'
    environment = {
      **os.environ,
      'TFDS_DATA_DIR': f'{scratch}/tfds',
      'JAX_COMPILATION_CACHE_DIR': '',
    }
    begun = time.perf_counter()
    done = subprocess.run(
      [sys.executable, '-m', 'certjax', 'quickstart', '--out', str(out)],
      check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    run = report.load(out)
    clean, quarter = report.certified_accuracy(run.certificate, run.labels, [0, 0.25])
    table = re.search(r'^\| run .*?(?=\n\n)', done.stdout, re.M | re.S).group()
  print(f'{table}\n{seconds:.0f} s')
  rows = [
    {'seconds': round(seconds, 1), 'clean': float(clean), 'certified at 0.25': float(quarter)}
  ]
  question = 'certjax quickstart on a fresh machine: seconds, clean and certified accuracy'
  common.write_card('quickstart', question, rows, table=table)


if __name__ == '__main__':
  main()
