"""The commands' arguments as frozen dataclasses; the text below each field is its `--help`."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Train:
  """Trains a classifier under noise and writes checkpoints and metrics."""

  out: pathlib.Path = pathlib.Path('runs/train')
  """Directory of the run. An interrupted run continues where its last checkpoint stands."""
  dataset: str = 'digits'
  """Name of the data set: digits, mnist, fashion_mnist, cifar10, imagenet2012, imagenet100."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
  model: str = 'digits-cnn'
  """Architecture: digits-cnn, mnist-cnn, resnet20, resnet110."""
  method: str = 'gaussian'
  """Smoothing method whose noise is added in training (a row of the method table), or 'none'."""
  sigma: float = 0.25
  """Standard deviation of the noise, in pixel values of [0, 1]."""
  parameters: dict[str, float] = dataclasses.field(default_factory=dict)
  """Further parameters of the method, as `--parameters keep 0.2` (README's table names them)."""
  objective: str = 'noise'
  """Training method: noise, stability, stability-clean, smooth-adv-pgd, smooth-adv-ddn, macer, consistency,
  smooth-mix."""
  objective_parameters: dict[str, float] = dataclasses.field(default_factory=dict)
  """Its hyperparameters, as `--objective-parameters eps 0.25 num_noises 2`."""
  objective_warmup_epochs: float = 0.0
  """Epochs over which the budget of its attack grows from 0."""
  batch_size: int = 64
  """Images a step, over all devices; a multiple of the number of devices."""
  num_epochs: int = 60
  """Passes over the training split."""
  augment: str | None = None
  """Data augmentation: crop_flip (4 pixels of padding, and a mirror image), crop (2), or None."""
  optimizer: str = 'adam'
  """Optimiser: adam, sgd (momentum 0.9), nesterov."""
  learning_rate: float = 2e-3
  """Largest learning rate."""
  schedule: str = 'cosine'
  """Learning-rate schedule: cosine, step, constant."""
  warmup_epochs: float = 1.0
  """Epochs of linear warm-up."""
  decay_every_epochs: float | None = None
  """Epochs between decays by 0.1, for the step schedule."""
  weight_decay: float = 0.0
  """L2 penalty on every parameter (added to the gradient; decoupled for adam)."""
  seed: int = 0
  """Seed of initialisation, order, augmentation and noise."""
  log_every: int = 50
  """Steps between metric lines."""
  save_every_epochs: int = 10
  """Epochs between checkpoints."""
  max_steps: int | None = None
  """Stop after this many steps in total (the schedule stays that of the full run)."""
  tensorboard: bool = False
  """Also write TensorBoard events (needs the `tensorboard` extra)."""


@dataclasses.dataclass(frozen=True)
class Certify:
  """Certifies test images of a trained run: by sampling (CERTIFY of Cohen et al. 2019), or exactly."""

  run: pathlib.Path
  """Directory written by `certjax train`."""
  out: pathlib.Path | None = None
  """Directory of the records (default: RUN itself). The same command again continues there."""
  method: str | None = None
  """Smoothing method: a row of the method table (default: that of training)."""
  sigma: float | None = None
  """Standard deviation of the noise, in pixel values of [0, 1] (default: that of training)."""
  norm: str | None = None
  """Norm of the certificate: l1, l2, linf, ... (default: the method's own)."""
  parameters: dict[str, float] | None = None
  """Further parameters of the method, as `--parameters keep 0.2` (default: those of training)."""
  num_selection: int = 100
  """Samples an image that choose the class (N0); exact methods draw none."""
  num_samples: int = 100_000
  """Samples an image that bound its probability (N)."""
  alpha: float = 1e-3
  """Failure probability of each image's certificate."""
  runner_up: bool = False
  """Bound the runner-up's probability too: certifies more where no class has a majority."""
  chunk: int = 1000
  """Rows of the model's batch on each device."""
  split: str = 'test'
  """Split to certify: test or train."""
  skip: int = 1
  """Take every `skip`-th image."""
  max_images: int | None = None
  """Take at most this many images."""
  evenly: int | None = None
  """Take this many evenly spaced images instead."""
  seed: int = 0
  """Seed of the noise."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: that of training, else TFDS's own)."""


@dataclasses.dataclass(frozen=True)
class Predict:
  """Classifies test images by the smoothed classifier: PREDICT of Cohen et al. 2019."""

  run: pathlib.Path
  """Directory written by `certjax train`."""
  out: pathlib.Path | None = None
  """Directory of the records (default: RUN/predict). The same command again continues there."""
  method: str | None = None
  """Smoothing method: a row of the method table (default: that of training)."""
  sigma: float | None = None
  """Standard deviation of the noise, in pixel values of [0, 1] (default: that of training)."""
  parameters: dict[str, float] | None = None
  """Further parameters of the method, as `--parameters keep 0.2` (default: those of training)."""
  num_samples: int = 1000
  """Samples an image."""
  alpha: float = 1e-3
  """Failure probability of each prediction; it abstains where it cannot keep it."""
  chunk: int = 1000
  """Rows of the model's batch on each device."""
  split: str = 'test'
  """Split to classify: test or train."""
  skip: int = 1
  """Take every `skip`-th image."""
  max_images: int | None = None
  """Take at most this many images."""
  evenly: int | None = None
  """Take this many evenly spaced images instead."""
  seed: int = 0
  """Seed of the noise."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: that of training, else TFDS's own)."""


@dataclasses.dataclass(frozen=True)
class Report:
  """Turns records (run directories, records.jsonl, or the field's TSV) into tables and a plot."""

  runs: tuple[pathlib.Path, ...]
  """Run directories, records files, or TSV files."""
  out: pathlib.Path | None = None
  """Directory for table.md, table.csv and curve.png (default: the first run's own)."""
  radii: tuple[float, ...] | None = None
  """Radii of the table, in the method's unit (default: chosen from the records)."""
  compare: bool = False
  """Compare the two given runs image by image (paired test at each radius)."""
  high_probability: bool = False
  """Add the accuracy that holds with probability 0.999 over the certificates' errors too."""
  tsv: pathlib.Path | None = None
  """Also write the first run as the field's TSV (idx label predict radius correct time)."""


@dataclasses.dataclass(frozen=True)
class Quickstart:
  """Trains on scikit-learn's digits, certifies held-out digits, prints the table: the main job."""

  out: pathlib.Path = pathlib.Path('certjax-quickstart')
  """Directory for checkpoint, records, table and plot."""
  sigma: float = 0.25
  """Standard deviation of the noise, in pixel values of [0, 1]."""
  num_samples: int = 10_000
  """Samples an image that bound its probability (N)."""
  num_images: int = 500
  """Held-out test images to certify, evenly spaced (there are 500)."""
  data_dir: pathlib.Path | None = None
  """TFDS directory in which the digits are prepared (default: TFDS's own)."""


@dataclasses.dataclass(frozen=True)
class Doctor:
  """Prints devices and versions, one self-test certificate, and a speed line."""

  chunk: int = 1000
  """Rows of the model's batch on each device for the speed line."""
