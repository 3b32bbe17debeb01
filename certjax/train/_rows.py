"""Which rows of a batch a process makes: those that lie on its own devices.

Order and augmentation are drawn for the whole batch, by every process alike, so that a run does not
depend on the number of processes; images are decoded only where they are needed.
"""

import numpy as np

from certjax import data, parallel


def own_batches(images, batch_size, *, mesh, **options):
  """`data.batches` of this process: the rows of `parallel.local_rows` alone.

  Args:
    images, batch_size: as `data.batches`; `batch_size` counts the rows of all processes.
    mesh: from `parallel.data_mesh`.
    **options: of `data.batches`.

  Returns:
    An iterator of {'x', 'y', 'index'}.

  Raises:
    ValueError: as `data.batches` and `parallel.local_rows`.
  """
  rows = parallel.local_rows(mesh, batch_size)
  if len(rows) == batch_size:
    return data.batches(images, batch_size, **options)
  if isinstance(images, data.Source):
    images = _Decoding(images, rows)
  whole = data.batches(images, batch_size, **options)
  return ({name: values[rows] for name, values in batch.items()} for batch in whole)


class _Decoding(data.Source):
  """A `data.Source` that decodes some rows of a batch; the others come out black, with label 0."""

  def __init__(self, source, rows):
    self.spec, self.split, self._all, self._decoded = source.spec, source.split, source, rows

  def __len__(self):
    return len(self._all)

  def examples(self, index):
    black = np.zeros(self.spec.shape, np.uint8)
    made = [(black, 0)] * len(index)
    decoded = self._all.examples(np.asarray(index)[self._decoded])
    for row, example in zip(self._decoded, decoded, strict=True):
      made[row] = example
    yield from made
