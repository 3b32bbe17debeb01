"""Arguments of `certjax study`; the text below each field is its `--help`."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class StudyBuild:
  """Makes a page from what attacks stored: pairs of images, one after the other, same or different?"""

  attacks: tuple[pathlib.Path, ...]
  """Directories written by `certjax attack`, of one data set. Adversarial images that succeeded are shown."""
  out: pathlib.Path = pathlib.Path('runs/study')
  """Directory of the study: page/ may be put on any server, key.json must not."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory of the original images (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
  features: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  """Networks that measure LPIPS, as `--features self runs/pat alexnet runs/alexnet` (training runs)."""
  max_pairs: int | None = 100
  """Pairs of each attack and bound, at most, evenly spaced; None takes all."""
  batch_size: int = 25
  """Pairs a batch."""
  num_identical: int = 5
  """Identical pairs a batch, at least, beside the sentinels."""
  num_sentinels: int = 4
  """Sentinels a batch: half of them identical, half obviously different."""
  sentinel_noise: float = 0.25
  """Standard deviation of the noise of an obviously different image, in pixel values of [0, 1]."""
  seconds: float = 2.0
  """Seconds that each image is shown."""
  gap: float = 0.5
  """Seconds of grey between the two images."""
  side: int = 384
  """Side of an image on the screen, in CSS pixels."""
  max_batches: int = 20
  """Batches that one worker may do."""
  price: float = 0.01
  """Dollars that are paid for a pair."""
  title: str = 'Are these two images the same?'
  """Title of the page, and of the task on Mechanical Turk."""
  instructions: str = (
    'You will see two images, one after the other. Say whether they are the same or different.\n'
    'Some pairs are identical, some differ only slightly. Look closely, and answer after the second image.'
  )
  """What a participant is told."""
  url: str | None = None
  """Where the page will lie, https://...: also writes one ExternalQuestion of Mechanical Turk a batch."""
  seed: int = 0
  """Seed of the order of pairs, and of which images are sentinels."""


@dataclasses.dataclass(frozen=True)
class StudyServe:
  """Shows a study on this machine alone (127.0.0.1), and keeps the answers; Ctrl-C ends it."""

  study: pathlib.Path
  """Directory written by `certjax study build`."""
  port: int = 8000
  """Port to listen on; 0 finds a free one."""


@dataclasses.dataclass(frozen=True)
class StudyAnalyse:
  """Perceptibility of each attack with its interval, and how well each distance predicts it."""

  study: pathlib.Path
  """Directory written by `certjax study build`."""
  answers: tuple[pathlib.Path, ...] | None = None
  """Directories of answers, JSON (default: STUDY/answers)."""
  out: pathlib.Path | None = None
  """Directory of study.md, study.csv, study.json, study.png, answers.csv (default: STUDY/analysis)."""
  threshold: float = 0.75
  """Share of sentinels that a worker must get right; others are left out."""
  level: float = 0.95
  """Confidence of the intervals."""
