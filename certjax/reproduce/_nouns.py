"""What a recipe is, what it is asked for, and what it gives back: a number beside a published one.

A number of ours stands for the setting and the data set that it names. It is compared with a
published one only where both are of one data set and one setting; else they stand side by side,
and the table says so.
"""

import math
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

SCALES = ('quick', 'reduced', 'full')
"""From minutes on two cores to the published setting."""
KINDS = ('value', 'at most', 'at least')
"""How a published number is meant: measured, or a bound that a theorem gives."""
ARITHMETIC = 'none'
"""The data set of a number that needs no data."""
EXACT = 1e-9  # Relative: how far float64 may lie from a number that is printed in full.


class Published(NamedTuple):
  """A number of a paper, as `published.json` holds it.

  Attributes:
    paper: authors, year and title.
    source: where the number was read.
    table: which table or figure it is of.
    dataset: a name of `data.DATASETS`, or `ARITHMETIC`.
    setting: how it was obtained.
    value: the number.
    unit: of the number.
    kind: one of `KINDS`.
    decimals: digits after the point that were printed; None where it is known in full.
  """

  paper: str
  source: str
  table: str
  dataset: str
  setting: str
  value: float
  unit: str
  kind: str = 'value'
  decimals: int | None = None


class Row(NamedTuple):
  """A number of ours, and the published one that it stands beside.

  Attributes:
    number: what is measured.
    ours: the number, or None where it was not measured.
    unit: of the number.
    setting: how ours was obtained.
    dataset: what ours was obtained on, a name of `data.DATASETS` or `ARITHMETIC`.
    published: the `Published` beside it, or None.
    interval: (lower, upper) of 95% confidence in ours, None where nothing is drawn.
    seed: that ours depends on, None where there is none.
    comparable: whether both are of one setting, so that they should agree.
  """

  number: str
  ours: float | None
  unit: str
  setting: str
  dataset: str
  published: Published | None = None
  interval: tuple[float, float] | None = None
  seed: int | None = None
  comparable: bool = False


class Result(NamedTuple):
  """What a recipe found.

  Attributes:
    rows: the numbers.
    figure: panels of `report.plot_panels`, where the lecture has a figure.
    shown: instead of panels, `report.Shown` of each attack, for `report.plot_attacked`.
    notes: sentences that must stand below the table.
  """

  rows: tuple
  figure: tuple = ()
  notes: tuple = ()
  shown: tuple = ()


class Attacks(NamedTuple):
  """What the names of attacks mean: the tables of `certjax.configs`, from the command line.

  Attributes:
    threat_of: `(norm, eps) -> threat`.
    build: `(name, threat, num_classes, parameters) -> tuple of attacks.Part`.
    unit_of: `(norm) -> str`.
    bounds: data set -> norm -> eps, of the perceptual comparison.
  """

  threat_of: Callable
  build: Callable
  unit_of: Callable
  bounds: Mapping


class Request(NamedTuple):
  """What a recipe is asked for.

  Attributes:
    scale: one that the recipe offers.
    out: directory for what may be long, such as training runs; the same request continues there.
    seed: of everything that is drawn.
    data_dir: TFDS directory, or None for its default.
    logs: directory of the authors' published logs, or None.
    weights: directory of published networks, or None.
    presets: name -> training config (`configs.PRESETS` from the command line), for `train.run`.
    attacks: an `Attacks`, for recipes that attack.
    say: called with a line whenever a part is finished.
  """

  scale: str
  out: pathlib.Path
  seed: int = 0
  data_dir: pathlib.Path | None = None
  logs: pathlib.Path | None = None
  weights: pathlib.Path | None = None
  presets: Mapping[str, Any] = MappingProxyType({})
  attacks: Attacks | None = None
  say: Callable[[str], None] = lambda line: None


class Scale(NamedTuple):
  """One size of a recipe.

  Attributes:
    cost: in words.
    datasets: names of the data sets that it reads.
  """

  cost: str
  datasets: tuple = ()


class Recipe(NamedTuple):
  """One table or figure of the literature, to be made again.

  Attributes:
    name: what `certjax reproduce` calls it.
    source: the paper.
    dataset: what the published numbers were obtained on, or `ARITHMETIC`.
    shows: one line, the question it answers.
    scales: name of `SCALES` -> `Scale`, those that are offered.
    run: `Request -> Result`.
    reads_logs: whether `Request.logs` has a meaning.
    weights_at: the scales at which `Request.weights` must be given; at others it has no meaning.
    left_out: a scale that is not offered -> why.
  """

  name: str
  source: str
  dataset: str
  shows: str
  scales: Mapping[str, Scale]
  run: Callable[[Request], Result]
  reads_logs: bool = False
  weights_at: tuple[str, ...] = ()
  left_out: Mapping[str, str] = MappingProxyType({})


def at_every_scale(cost: str, datasets: tuple = ()) -> dict[str, Scale]:
  """The scales of what has one size only, such as arithmetic: larger ones are the same computation.

  Example:
    >>> at_every_scale('seconds')['full'].cost
    'seconds: the same computation as quick'
  """
  same = Scale(f'{cost}: the same computation as quick', datasets)
  return {scale: same for scale in SCALES} | {'quick': Scale(cost, datasets)}


def verdict(row: Row) -> str:
  """How ours stands to the published number.

  'agrees' where a measured one is met to its printed digits, or its interval covers it, or a bound
  is kept; 'differs' else; 'another setting' where they are not comparable; '' without two numbers.

  A bound that a theorem gives (`ARITHMETIC`, no `value`) holds on every data set.

  Raises:
    ValueError: if a row is called comparable, and has no published number or another data set or
      unit: a result on digits is never a match for one on ImageNet.

  Example:
    >>> two_thirds = Published('A', 'B', 'C', ARITHMETIC, '', 0.67, '', decimals=2)
    >>> row = Row('x', 2 / 3, '', '', ARITHMETIC, two_thirds, comparable=True)
    >>> verdict(row), verdict(row._replace(ours=0.6)), verdict(row._replace(comparable=False))
    ('agrees', 'differs', 'another setting')
  """
  there = row.published
  if row.comparable and not (there and _one_setting(row, there)):
    theirs = there and (there.dataset, there.unit)
    raise ValueError(
      f'{row.number}: a comparable row needs a published number on the same data set and in the '
      f'same unit, got {(row.dataset, row.unit)} beside {theirs}.'
    )
  if there is None or row.ours is None:
    return ''
  if not row.comparable:
    return 'another setting'
  return 'agrees' if _agree(row, there) else 'differs'


def _one_setting(row, there):
  theorem = there.dataset == ARITHMETIC and there.kind != 'value'
  return row.unit == there.unit and (theorem or row.dataset == there.dataset)


def _agree(row, there):
  slack = EXACT * abs(there.value)
  if there.decimals is not None:
    slack = 0.5 * 10.0**-there.decimals * (1 + EXACT)
  low, high = row.interval or (row.ours, row.ours)
  if there.kind == 'at most':
    return low <= there.value + slack
  if there.kind == 'at least':
    return high >= there.value - slack
  return low - slack <= there.value <= high + slack and not math.isnan(row.ours)
