"""Metrics of a training run: one JSON line a logged step, and TensorBoard where wanted."""

import contextlib
import json
import os
import pathlib


@contextlib.contextmanager
def open_metrics(path, *, step=0, tensorboard=None):
  """Opens a metrics file for a run that stands at `step`.

  Lines of later steps, left by a run that died after its last checkpoint, are dropped: the
  resumed run writes them again.

  Args:
    path: the JSONL file.
    step: steps done.
    tensorboard: folder for TensorBoard events (needs the `tensorboard` extra), or None.

  Yields:
    `write(step, metrics)`.

  Raises:
    OSError: if the file cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = pathlib.Path(folder) / 'metrics.jsonl'
    ...   with open_metrics(path) as write:
    ...     write(50, {'loss': 0.5})
    ...   print(path.read_text())
    {"step": 50, "loss": 0.5}
  """
  path = pathlib.Path(path)
  _drop_later(path, step)
  events = _tensorboard(tensorboard)
  with path.open('a') as file:

    def write(step, metrics):
      metrics = {name: float(value) for name, value in metrics.items()}
      file.write(json.dumps({'step': step, **metrics}) + '\n')
      file.flush()
      if events is not None:
        for name, value in metrics.items():
          events.add_scalar(name, value, step)

    try:
      yield write
    finally:
      if events is not None:
        events.close()


def _drop_later(path, step):
  """Rewrites the file without torn lines and those of steps after `step`, whole or not at all."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(errors='replace').splitlines():
    with contextlib.suppress(ValueError, KeyError, TypeError):  # A torn last line.
      if json.loads(line)['step'] <= step:
        kept.append(line + '\n')
  temporary = path.with_name(f'.{path.name}')
  temporary.write_text(''.join(kept))
  os.replace(temporary, path)


def _tensorboard(folder):
  if folder is None:
    return None
  try:
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports] # An extra.
  except ImportError as error:
    raise ValueError(
      '`tensorboard` needs the extra of that name: pip install "certjax[tensorboard]".'
    ) from error
  return SummaryWriter(str(folder))
