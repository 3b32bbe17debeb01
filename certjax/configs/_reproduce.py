"""Arguments of `certjax reproduce`; the text below each field is its `--help`."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
  """Makes a published table or figure again: published numbers and ours, side by side."""

  name: str | None = None
  """Which one; `certjax reproduce --list` names and describes them."""
  list: bool = False
  """Only list them: source, data set, cost at each scale, and whether the data are at hand."""
  scale: str = 'quick'
  """How much: quick (minutes on two cores), reduced, or full (the published setting), where offered."""
  out: pathlib.Path | None = None
  """Directory of table.md, cards/ and figure.png (default: runs/reproduce/NAME-SCALE)."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
  logs: pathlib.Path | None = None
  """Of cohen-cifar10 and cohen-imagenet: the folder data of the authors' repository, locuslab/smoothing,
  whose certification logs give the published tables."""
  weights: pathlib.Path | None = None
  """Of recoloradv-combinations beyond the quick scale: a folder with the authors' networks, the one without
  defence as *resnet32_normal.*, the one trained against recolourings as *resnet32_recoloradv.*."""
  seed: int = 0
  """Seed of whatever is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyCards:
  """Runs the recipes of cards again, and puts each number beside what it was."""

  cards: tuple[pathlib.Path, ...] = ()
  """Cards that `certjax reproduce` wrote: files, or directories of them."""
  out: pathlib.Path = pathlib.Path('runs/verify-cards')
  """Where the recipes are run, a directory for each; what lies there is continued, not run again."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
  logs: pathlib.Path | None = None
  """As of `certjax reproduce`, for cards that were made with it."""
  weights: pathlib.Path | None = None
  """As of `certjax reproduce`, for cards that were made with it."""
