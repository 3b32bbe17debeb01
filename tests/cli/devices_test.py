"""The number of devices changes nothing in the records."""

import os
import subprocess
import sys

_COMMAND = """
import sys, jax
from certjax.cli import main
assert jax.local_device_count() == int(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def records_on(num_devices, arguments, out):
  """The records of a process that sees this many CPU devices."""
  subprocess.run(
    [sys.executable, '-c', _COMMAND, str(num_devices), *map(str, arguments), '--out', str(out)],
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(num_devices)}, capture_output=True, check=True,
  )  # fmt: skip
  return (out / 'records.jsonl').read_bytes()


def test_records_are_those_of_one_device(trained, tmp_path):
  """Groups of 2, 4 and 5 images on 1, 2 and 8 devices, with ragged ends; 8 x 500 rows at once."""
  arguments = ('certify', trained, '--evenly', 5, '--num-samples', 9_001, '--chunk', 500)
  one, two, eight = (records_on(number, arguments, tmp_path / str(number)) for number in (1, 2, 8))
  assert one.count(b'\n') == 6
  assert one == two == eight
