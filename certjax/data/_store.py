"""Where data sets lie on disk, and how they get there.

The layout is TFDS' own (`<data_dir>/<tfds name>/<version>/`, ArrayRecord), so what certjax prepares
other programs read, and the other way round. Reading needs no TensorFlow; only TFDS' own
preparation of the official sets does (the `prepare` extra).
"""

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from certjax.data._digits import write_digits
from certjax.data._table import DATASETS, IMAGE_FOLDER, dataset

_PREPARE_NEEDS = ('tensorflow', 'importlib_resources')  # TFDS imports both, and declares neither.
_MANUAL = ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar')


class Status(NamedTuple):
  """What `certjax data` shows of one data set.

  Attributes:
    name: the data set.
    prepared: whether it can be loaded now.
    path: the folder that holds it, or would hold it.
    remedy: the command that prepares it; '' where it is prepared.
  """

  name: str
  prepared: bool
  path: Path
  remedy: str


def default_data_dir() -> Path:
  """TFDS's own convention: the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets.

  Returns:
    A path, which need not exist.

  Example:
    >>> default_data_dir().is_absolute() or 'TFDS_DATA_DIR' in os.environ
    True
  """
  return Path(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()


def is_prepared(name: str, data_dir=None) -> bool:
  """Whether a data set lies on disk in a format that `load` reads. Cheap: opens no records.

  Args:
    name: a key of `DATASETS`.
    data_dir: folder of TFDS data sets; default `default_data_dir()`.

  Returns:
    Whether it is there.

  Raises:
    ValueError: for an unknown name.

  Example:
    >>> is_prepared('cifar10', 'nowhere')
    False
  """
  folder = version_dir(name, data_dir)
  return folder is not None and 'array_record' in _formats(folder)


def status(data_dir=None) -> list[Status]:
  """One row a known data set: is it there, where, and what to run if not.

  Args:
    data_dir: folder of TFDS data sets; default `default_data_dir()`.

  Returns:
    A list of `Status`, in the order of `DATASETS`.

  Example:
    >>> [row for row in status('nowhere') if row.name == 'mnist'][0].prepared
    False
  """
  return [_status(name, data_dir) for name in DATASETS]


def prepare(name: str, data_dir=None) -> Path:
  """Puts a data set on disk, unless it is there already.

  The digits are written from scikit-learn, offline. All others go through TFDS' official
  preparation (a download, TFDS' progress bars, minutes to hours), which needs TensorFlow.

  Args:
    name: a key of `DATASETS`.
    data_dir: folder of TFDS data sets; default `default_data_dir()`.

  Returns:
    The folder that holds the data set.

  Raises:
    ValueError: for an unknown name, where TensorFlow or ImageNet's archives are missing, where
      the data set is there in a format without random access, or where the folder cannot be
      written. One line, which says what to do.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   prepare('digits', folder) == prepare('digits', folder), is_prepared('digits', folder)
    (True, True)
  """
  spec, data_dir = dataset(name), _resolve(data_dir)
  if spec is IMAGE_FOLDER:
    raise ValueError('imagefolder is read as it lies: nothing to prepare, pass `--data-dir DIR`.')
  if is_prepared(name, data_dir):
    return locate(name, data_dir)
  try:
    if spec.prepared_by == 'certjax':
      write_digits(data_dir)
    else:
      _prepare_officially(spec, data_dir)
  except OSError as error:
    raise ValueError(
      f'cannot write {name} below {data_dir}: {one_line(error)}. Choose another folder with '
      '`data_dir` (`--data-dir`) or the environment variable TFDS_DATA_DIR.'
    ) from error
  return locate(name, data_dir)


def locate(name: str, data_dir=None) -> Path:
  """The folder of a prepared data set, or a ValueError that says how to prepare it."""
  data_dir = _resolve(data_dir)
  folder = version_dir(name, data_dir)
  if folder is None:
    wanted = data_dir / dataset(name).tfds_name
    raise ValueError(f'{name} is not prepared: looked in {wanted}. Run `{_command(name)}`.')
  if 'array_record' not in _formats(folder):
    raise ValueError(
      f'{folder} holds {", ".join(_formats(folder)) or "no readable format"}; certjax reads '
      f'array_record. Prepare it into another folder: `{_command(name)} --data-dir FOLDER`.'
    )
  return folder


def version_dir(name, data_dir) -> Path | None:
  """The newest version on disk, or None."""
  root = _resolve(data_dir) / dataset(name).tfds_name
  found = [path.parent for path in root.glob('*/dataset_info.json')]
  found = [path for path in found if re.fullmatch(r'\d+\.\d+\.\d+', path.name)]
  return max(found, key=lambda path: [int(n) for n in path.name.split('.')], default=None)


def one_line(error) -> str:
  """The first line of an exception's text, shortened."""
  text = str(error).strip().splitlines() or [type(error).__name__]
  return text[0].rstrip('.')[:200]


def _resolve(data_dir) -> Path:
  return default_data_dir() if data_dir is None else Path(data_dir).expanduser()


def _command(name) -> str:
  return f'certjax data prepare {name}'


def _status(name, data_dir) -> Status:
  path = version_dir(name, data_dir) or _resolve(data_dir) / dataset(name).tfds_name
  prepared = is_prepared(name, data_dir)
  return Status(name, prepared, path, '' if prepared else _command(name))


def _formats(folder) -> list[str]:
  """The file formats a TFDS folder declares; empty where its description is unreadable."""
  try:
    info = json.loads((folder / 'dataset_info.json').read_text())
    return [info['fileFormat'], *info.get('alternativeFileFormats', [])]
  except (OSError, ValueError, KeyError, TypeError):
    return []


def _prepare_officially(spec, data_dir):
  existing = version_dir(spec.name, data_dir)
  if existing is not None:
    locate(spec.name, data_dir)  # Raises: TFDS would silently keep the unsuitable format.
  missing = [module for module in _PREPARE_NEEDS if importlib.util.find_spec(module) is None]
  if missing:
    raise ValueError(
      f'preparing {spec.name} needs {" and ".join(missing)}: run `pip install "certjax[prepare]"`, '
      f'then `{_command(spec.name)}`.'
    )
  manual = data_dir / 'downloads' / 'manual'
  absent = [file for file in _MANUAL if not (manual / file).exists()]
  if spec.tfds_name == 'imagenet2012' and absent:
    raise ValueError(
      f'ImageNet must be downloaded by hand (image-net.org): put {" and ".join(absent)} into '
      f'{manual}, then run `{_command(spec.name)}`.'
    )
  import tensorflow_datasets as tfds

  builder = tfds.builder(spec.tfds_name, data_dir=str(data_dir), file_format='array_record')
  builder.download_and_prepare()
