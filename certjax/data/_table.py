"""The data sets certjax knows: one explicit table, no registry magic.

Sizes, shapes and normalisation constants are written here once and read everywhere else. Pixel
space is [0, 1]; `mean` and `std` feed the normalisation layer, which is the model's first layer,
so that every radius stays in pixel units. The grey-scale sets use mean 0 and std 1: the published
certified MNIST networks take [0, 1] directly, and an identity keeps their Lipschitz constants.
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Dataset(NamedTuple):
  """One row of the table.

  Attributes:
    name: the name used throughout certjax.
    tfds_name: the TFDS data set that holds the images.
    shape: (H, W, C) of an image as `load` and `source` return it.
    num_classes: number of labels; labels are 0 .. num_classes - 1.
    splits: 'train' and 'test' -> name of the TFDS split.
    sizes: number of images a split; None where only the labels on disk can tell.
    mean, std: per channel, for the normalisation layer, in [0, 1] pixel units.
    fits_in_memory: whether `load` may decode a whole split.
    prepared_by: 'certjax' (built here, offline) or 'official' (TFDS' own download and preparation).
    augment: the default of `batches(augment=)` for training, or None.
    class_stride: every how many-th class of the TFDS data set belongs to this one.
  """

  name: str
  tfds_name: str
  shape: tuple[int, int, int]
  num_classes: int
  splits: Mapping[str, str]
  sizes: Mapping[str, int | None]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  fits_in_memory: bool = True
  prepared_by: str = 'official'
  augment: str | None = None
  class_stride: int = 1

  def size(self, split) -> int:
    """Number of images of a split.

    Raises:
      ValueError: where only the labels on disk can tell.
    """
    found = self.sizes[split]
    if found is None:
      raise ValueError(f'`split`: how many images of {self.name}, {split}, only its labels tell.')
    return found

  @property
  def is_photographs(self) -> bool:
    """Whether its files hold photographs of any size, cut to `shape` as they are decoded."""
    return self.tfds_name == 'imagenet2012'


_SPLITS = MappingProxyType({'train': 'train', 'test': 'test'})
_IMAGENET_SPLITS = MappingProxyType({'train': 'train', 'test': 'validation'})
_GREY: dict[str, Any] = {'mean': (0.0,), 'std': (1.0,)}
_IMAGENET: dict[str, Any] = {
  'tfds_name': 'imagenet2012',
  'shape': (224, 224, 3),
  'splits': _IMAGENET_SPLITS,
  'mean': (0.485, 0.456, 0.406),
  'std': (0.229, 0.224, 0.225),
  'fits_in_memory': False,
  'augment': 'random_resized_crop',
}


def _sizes(train, test):
  return MappingProxyType({'train': train, 'test': test})


DATASETS: Mapping[str, Dataset] = MappingProxyType(
  {
    'digits': Dataset(
      'digits', 'digits', (8, 8, 1), 10, _SPLITS, _sizes(1_297, 500), **_GREY, prepared_by='certjax'
    ),
    'mnist': Dataset(
      'mnist', 'mnist', (28, 28, 1), 10, _SPLITS, _sizes(60_000, 10_000), **_GREY, augment='crop'
    ),
    'fashion_mnist': Dataset(
      'fashion_mnist',
      'fashion_mnist',
      (28, 28, 1),
      10,
      _SPLITS,
      _sizes(60_000, 10_000),
      **_GREY,
      augment='crop',
    ),
    'cifar10': Dataset(
      'cifar10',
      'cifar10',
      (32, 32, 3),
      10,
      _SPLITS,
      _sizes(50_000, 10_000),
      mean=(0.4914, 0.4822, 0.4465),
      std=(0.2023, 0.1994, 0.2010),
      augment='crop_flip',
    ),
    'imagenet2012': Dataset(
      'imagenet2012', num_classes=1_000, sizes=_sizes(1_281_167, 50_000), **_IMAGENET
    ),
    # Every tenth WNID in sorted order: labels 0, 10, ..., 990 become 0 .. 99 (as in PAT).
    'imagenet100': Dataset(
      'imagenet100', num_classes=100, sizes=_sizes(None, 5_000), class_stride=10, **_IMAGENET
    ),
  }
)


IMAGE_FOLDER = DATASETS['imagenet2012']._replace(name='imagefolder', sizes=_sizes(None, None))
"""A directory of class folders, its photographs resized and cropped as ImageNet's."""


def choose(argument: str, value, choices) -> str:
  """`value` if it is one of `choices`, else a ValueError with a did-you-mean."""
  choices = list(choices)
  if value in choices:
    return value
  close = difflib.get_close_matches(str(value), choices, n=1)
  hint = f' Did you mean {close[0]!r}?' if close else ''
  raise ValueError(f'`{argument}`={value!r} is not one of {", ".join(choices)}.{hint}')


def dataset(name: str, data_dir=None) -> Dataset:
  """Looks a data set up by name.

  Args:
    name: a key of `DATASETS`, or 'imagefolder'.
    data_dir: for 'imagefolder' its directory, which says how many classes there are; without it
      ImageNet's 1,000.

  Returns:
    Its row of the table.

  Raises:
    ValueError: for an unknown name; lists the known ones. For a directory without class folders.

  Example:
    >>> dataset('cifar10').shape
    (32, 32, 3)
  """
  table = {**DATASETS, IMAGE_FOLDER.name: IMAGE_FOLDER}
  spec = table[choose('name', name, table)]
  if spec is IMAGE_FOLDER and data_dir is not None:
    from certjax.data._folder import class_names  # Here: that module reads this table.

    spec = spec._replace(num_classes=len(class_names(data_dir)))
  return spec
