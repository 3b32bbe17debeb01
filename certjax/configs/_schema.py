"""The commands' arguments as frozen dataclasses; the text below each field is its `--help`."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Train:
  """Trains a classifier under noise and writes checkpoints and metrics."""

  out: pathlib.Path = pathlib.Path('runs/train')
  """Directory of the run. An interrupted run continues where its last checkpoint stands."""
  dataset: str = 'digits'
  """Name of the data set: digits, mnist, fashion_mnist, cifar10, imagenet2012, imagenet100; or imagefolder,
  a directory of class folders: DATA_DIR/train/CLASS/*.jpeg, DATA_DIR/validation/CLASS/*.jpeg."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
  model: str = 'digits-cnn'
  """Architecture: digits-cnn, mnist-cnn, resnet20, resnet110, resnet18 (CIFAR), resnet18-imagenet, resnet50,
  wrn40-2, wrn28-10, wrn34-10; with a proved Lipschitz constant lipconvnet5-soc to lipconvnet40-cayley,
  kwlarge-soc, lipnext-l32w1024; with orthogonal convolutions resnet9-soc, resnet18-bcop; for bounds ibp-small,
  ibp-medium, ibp-large, kw-mnist, mlp-5x100, mlp-255; against patches bagnet17, bagnet-small, vit-mnist-band4
  (docs/pages/methods.md names more)."""
  method: str = 'gaussian'
  """Smoothing method whose noise is added in training (a row of the method table), or 'none'."""
  sigma: float = 0.25
  """Standard deviation of the noise, in pixel values of [0, 1]."""
  parameters: dict[str, float | str] = dataclasses.field(default_factory=dict)
  """Further parameters of the method, as `--parameters keep 0.2` (docs/pages/methods.md names them)."""
  objective: str = 'noise'
  """Training method: noise, stability, stability-clean, smooth-adv-pgd, smooth-adv-ddn, macer, consistency,
  smooth-mix; without noise (--method none): clean; against attacks adversarial (linf, PGD), adversarial-l2,
  trades, trades-l2, mart, fast-adversarial (one step), free-adversarial (replays), adversarial-awp, trades-awp;
  pat (perceptual), adversarial-stadv, -recolor, -jpeg, several: adversarial-random, -average, -maximum; compositions
  adversarial-cd, -cs, -sd, -csd, trades-c, -cd, -cs, -sd, -csd;
  lipschitz (for Lipschitz networks), and at bounds of the network: ibp, crown-ibp, diffai, wong-kolter,
  sabr, mtl-ibp; against replaced pixels: patch-ibp, sparse-ibp; of its curvature (smooth networks): crt;
  without labels, for features: rotnet, simclr."""
  objective_parameters: dict[str, float] = dataclasses.field(default_factory=dict)
  """Its hyperparameters, as `--objective-parameters eps 0.25 num_noises 2`."""
  objective_warmup_epochs: float = 0.0
  """Epochs over which the budget of its attack, or the radius of its bounds, grows from 0."""
  features: pathlib.Path | None = None
  """Of pat: directory of a training run whose network measures the distance, as it is (default: the
  network that is trained)."""
  batch_size: int = 64
  """Images a step, over all devices; a multiple of the number of devices."""
  num_epochs: int = 60
  """Passes over the training split."""
  augment: str | None = None
  """Data augmentation: crop_flip (4 pixels of padding, and a mirror image), crop (2); of photographs
  random_resized_crop (any place and size, and a mirror image); or None."""
  optimizer: str = 'adam'
  """Optimiser: adam, sgd (momentum 0.9), nesterov."""
  learning_rate: float = 2e-3
  """Largest learning rate."""
  schedule: str = 'cosine'
  """Learning-rate schedule: cosine, step, exponential, multistep (times 0.1 at 50% and 75%), triangular,
  cyclic (up to the largest at 50%, and down to 0), constant."""
  warmup_epochs: float = 1.0
  """Epochs of linear warm-up."""
  decay_every_epochs: float | None = None
  """Epochs between decays by 0.1, for the step and exponential schedules."""
  weight_decay: float = 0.0
  """L2 penalty on every parameter (added to the gradient; decoupled for adam)."""
  seed: int = 0
  """Seed of initialisation, order, augmentation and noise."""
  log_every: int = 50
  """Steps between metric lines."""
  save_every_epochs: int = 10
  """Epochs between checkpoints, and between looks at the held-out images."""
  validation: int = 0
  """Images of the training split that are held out to choose a checkpoint by, evenly spaced: numbers
  floor(i N / validation) of N, whatever the seed. The best is kept in OUT/best (`certify RUN
  --checkpoint best`)."""
  max_steps: int | None = None
  """Stop after this many steps in total (the schedule stays that of the full run)."""
  tensorboard: bool = False
  """Also write TensorBoard events (needs the `tensorboard` extra)."""
  coordinator: str | None = None
  """To train over several processes: HOST:PORT of process 0, or auto (a Cloud TPU pod). Default: what
  Slurm (srun) or Open MPI say, else one process. All see the same --out."""
  num_processes: int | None = None
  """How many processes there are (default: from the cluster; 1 trains alone, also under srun)."""
  process_id: int | None = None
  """Which of them this is, 0 .. num_processes - 1 (default: from the cluster)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What certify and predict share: a model, its noise, the images, the place of the records."""

  run: pathlib.Path | None = None
  """Directory written by `certjax train`. Without it, --model and --dataset say what to evaluate."""
  checkpoint: str = 'latest'
  """Which checkpoint of RUN: latest, or best (by the images that `train --validation` held out)."""
  model: str | None = None
  """Instead of RUN: a model of your own, as package.module:name (a function of images in [0, 1] to
  logits, a Flax nnx module, or a pair of linen module and variables), or the name of an
  architecture of certjax, with --weights."""
  weights: pathlib.Path | None = None
  """Published weights for --model: .safetensors, PyTorch's .pt / .pth / .pth.tar, or .npz."""
  mean: tuple[float, ...] | None = None
  """Normalisation that --weights were trained with, per channel (default: the data set's)."""
  std: tuple[float, ...] | None = None
  """Its standard deviations."""
  outside_jax: bool = False
  """The model of --model lives outside JAX: numpy float32[chunk, H, W, C] in, numpy logits out."""
  dataset: str | None = None
  """Data set for --model (default: that of training)."""
  precision: str = 'float32'
  """Arithmetic of the model: float32, or bfloat16 (weights and images rounded; faster on TPU)."""
  out: pathlib.Path | None = None
  """Directory of the records. The same command again continues there."""
  shard: str | None = None
  """Part i of n of the images, as 0/4 (default: from Slurm or JAX's process index, else 0/1)."""
  store: str | None = None
  """How records are kept: append (one growing file), or segments (files written once and whole, for
  mounted drives; the default for gs:// and the like)."""
  method: str | None = None
  """Method: a row of the method table (default: that of training; without noise ibp, crown-ibp, crown,
  patch-ibp or sparse-ibp for a network trained at bounds, crc for one trained at
  its curvature, lipschitz for one with a proved constant). `certjax certify --method NAME --help` ends with what
  its certificate says, and when it says nothing."""
  sigma: float | None = None
  """Standard deviation of the noise, in pixel values of [0, 1] (default: that of training)."""
  parameters: dict[str, float | str] | None = None
  """Further parameters of the method, as `--parameters keep 0.2` (default: those of training)."""
  chunk: int = 1000
  """Rows of the model's batch on each device."""
  split: str = 'test'
  """Split of the data set: test or train."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certify(Evaluation):
  """Certifies test images: by sampling (CERTIFY of Cohen et al. 2019), sequentially, or exactly: by all
  views, by the margin of a Lipschitz network, or by bounds on a network.

  RUN is a directory written by `certjax train`, where the records go by default."""

  norm: str | None = None
  """Norm of the certificate: l1, l2, linf, ... (default: the method's own)."""
  num_selection: int = 100
  """Samples an image that choose the class (N0); exact methods draw none."""
  num_samples: int = 100_000
  """Samples an image that bound its probability (N); the most of a sequential test."""
  alpha: float = 1e-3
  """Failure probability of each image's certificate."""
  runner_up: bool = False
  """Bound the runner-up's probability too: certifies more where no class has a majority."""
  slack: float | None = None
  """Of exact methods: also record the radius that holds for every program whose logits differ by
  less than half of this from this one's (another batch shape, library or device)."""
  eps: float | None = None
  """Of ibp, crown-ibp and crown: the radius to verify, in pixel values of [0, 1] for every norm (default:
  that of a training at bounds)."""
  largest: bool = False
  """Of these: look for the largest radius of each image up to --eps, by bisection (22 proofs an image)."""
  slope: str | None = None
  """Of crown-ibp and crown: slope of the lower line of an unstable ReLU, adaptive (default), same (Wong &
  Kolter's dual), zero or one. --parameters num_steps 20 optimises it, chunk 256 bounds memory."""
  radii: tuple[float, ...] | None = None
  """Only decide whether the radius is at least each of these, in the method's unit, with as few
  samples as that takes: a sequential test."""
  tolerance: float | None = None
  """Stop an image once its radius is within this fraction of the best in reach, as 0.05."""
  rule: str | None = None
  """Sequential rule: group-sequential (default), betting, union-bound, horvath, fixed; with
  --tolerance betting (default) or union-bound."""
  fixed_class: bool = False
  """Test the label itself instead of a selected class: all that certified accuracy needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Evaluation):
  """Classifies test images by the smoothed classifier: PREDICT of Cohen et al. 2019.

  RUN is a directory written by `certjax train`; the records go to RUN/predict by default."""

  num_samples: int = 1000
  """Samples an image."""
  alpha: float = 1e-3
  """Failure probability of each prediction; it abstains where it cannot keep it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(Evaluation):
  """Attacks test images, and reports the accuracy under each attack and in the worst case over them.

  RUN is a directory written by `certjax train`; the results go to RUN/attack by default. Every adversarial
  image is stored, and judged as it lies there. A smoothed model (one trained under noise, or --method and
  --sigma) is attacked in its mean softmax, and PREDICT, or the vote of all views, judges; --method none
  attacks the network itself."""

  attacks: tuple[str, ...] = ('autoattack',)
  """Attacks to run (docs/pages/attacks.md names them): fgsm, pgd, apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square,
  deepfool, ddn, autoattack; few pixels pgd0, sparse-rs; patches patch-pgd, sparse-rs-patch; perceptual
  ppgd, lpa, fast-lpa; of all that comes after lpips below: latent."""
  norm: str = 'linf'
  """Threat: linf, l2, l1, l0 (pixels, all channels together), patch (one square), lpips (features of a
  network), or a function of the image: stadv (flow), recolor, jpeg, elastic, fog, gabor, snow, composed."""
  eps: float | None = None
  """Largest size of the perturbation (has no default), in pixel values of [0, 1]; in whole pixels for l0
  and patch (side); else in the threat's own unit, which the table names."""
  features: pathlib.Path | None = None
  """Of lpips: directory of a training run whose network measures the distance (default: the attacked
  network itself)."""
  options: dict[str, float | str] = dataclasses.field(default_factory=dict)
  """Parameters of attacks, as `--options pgd.num_steps 100 autoattack.version plus`."""
  batch_size: int = 100
  """Images that an attack sees at once."""
  num_noises: int = 32
  """Of a smoothed model: noises whose mean softmax attacks climb."""
  num_samples: int = 1000
  """Of a smoothed model: samples of PREDICT, an image."""
  alpha: float = 1e-3
  """Of a smoothed model: failure probability of each prediction; it abstains where it cannot keep it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """Trains and certifies once for each value of one parameter of the noise, and puts them in one table.

  Every value has its directory, OUT/NAME-VALUE; the same command continues what was interrupted."""

  training: Train
  """What is trained, but for the parameter (its own `out` is not used)."""
  certification: Certify = dataclasses.field(default_factory=Certify)
  """How it is certified; run, method, sigma and parameters are those of the training."""
  parameter: str = 'sigma'
  """What varies: sigma, or another parameter of the method (docs/pages/methods.md names them), as keep."""
  values: tuple[float, ...]
  """Its values."""
  predict: int = 0
  """Samples of a prediction that may abstain (PREDICT, at the alpha of the certificates), whose accuracy
  and abstention are tabled too; 0: none."""
  out: pathlib.Path | None = None
  """Directory of the sweep (default: that of the training, with -sweep)."""


@dataclasses.dataclass(frozen=True)
class Poison:
  """Trains an ensemble over the parts of a training set, and certifies test images against poisoned
  samples.

  Every test image gets the number of training samples that may be added or removed (an image replaced
  counts 2) without another answer; with ss-dpa, the number of labels that may be flipped. The certificates
  are exact. Members are trained in groups; the same command continues what was interrupted."""

  method: str
  """Certificate: dpa (each sample reaches one member, all vote), run-off (the same members, elected in two
  rounds), finite-aggregation (each sample reaches --spread members), or ss-dpa (label flips alone)."""
  out: pathlib.Path = pathlib.Path('runs/poison')
  """Directory of members, records, table and plot."""
  members: pathlib.Path | None = None
  """Directory of an earlier run whose members are used, as far as they are there (default: OUT): dpa and
  run-off can share theirs."""
  dataset: str = 'mnist'
  """Data set (certjax data lists them)."""
  data_dir: pathlib.Path | None = None
  """Prepared TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
  partitions: int = 1200
  """Parts of the training set (k): a member learns from one in k samples."""
  spread: int = 1
  """Of finite-aggregation: members that each sample reaches (d); k d members are trained."""
  hash: str = 'pixel-sum'
  """What sends a sample to its part: pixel-sum (of the image, as published), or blake2 (of its bytes). Not
  used by ss-dpa, which sorts the images."""
  learner: str = 'mlp'
  """Base learner: mlp (one hidden layer), nearest-neighbour, linear (softmax regression), cnn (small, with
  shifted images), or nin (the papers' Network in Network, for an accelerator)."""
  learner_parameters: dict[str, float] = dataclasses.field(default_factory=dict)
  """Its hyperparameters, as `--learner-parameters hidden 128 num_steps 100 step_size 0.03` of mlp (docs/pages/methods.md names all)."""
  features: pathlib.Path | None = None
  """Of ss-dpa: directory of a run trained without labels on the same data set (`certjax train rotnet-mnist`,
  simclr-cifar10), whose features the members learn from in place of images."""
  capacity: int | None = None
  """Samples that a member sees at most; larger parts are thinned (default: mean + 4 sqrt(mean) of a part's
  size, up to a multiple of 8). The certificates are about training with this number."""
  group: int = 40
  """Members that are trained in one program, and kept in one file."""
  chunk: int = 500
  """Test images that a member answers at once."""
  skip: int = 1
  """Take every `skip`-th test image."""
  max_images: int | None = None
  """Take at most this many test images."""
  evenly: int | None = None
  """Take this many evenly spaced test images instead."""
  seed: int = 0
  """Seed of the members' initialisation, and of which members a sample reaches."""


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
  html: pathlib.Path | None = None
  """Also write one self-contained page, FILE.html: tables, curve, contract cards, settings, outcomes, and example images
  where the data set is at hand."""
  tsv: pathlib.Path | None = None
  """Also write the first run as the field's TSV (idx label predict radius correct time)."""
  latex: pathlib.Path | None = None
  """Also write the table as LaTeX for a paper (booktabs)."""
  threats: bool = False
  """The runs are directories of `certjax attack`, one a threat, of one model and the same images: report the
  accuracy under each, under all together, and which images fall to which."""
  trained: tuple[str, ...] = ()
  """With --threats: those that the model was trained against, as linf; adds the mean over the others."""
  grid: pathlib.Path | None = None
  """Of directories of `certjax attack`: a PNG with original, adversarial image and scaled difference of images
  that each attack broke (needs JAX)."""
  num_images: int = 8
  """With --grid: at most so many images of each attack, evenly spaced among those that it broke."""
  data_dir: pathlib.Path | None = None
  """With --grid and --html: prepared TFDS directory of the originals (default: TFDS's own)."""


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


@dataclasses.dataclass(frozen=True)
class Version:
  """Prints the versions of certjax, of what it stands on, of Python, and platform and devices."""

  json: bool = False
  """Print them as JSON."""


@dataclasses.dataclass(frozen=True)
class Spectrum:
  """Measures every layer of a trained run that has a matrix or a convolution: singular values, the
  proved constant, upper bounds for zero padding. Writes spectrum.json, spectrum.csv, spectrum.png."""

  run: pathlib.Path
  """Directory written by `certjax train`."""
  out: pathlib.Path | None = None
  """Directory of the three files (default: RUN)."""
  max_work: float = 2e9
  """Most multiplications of a layer's singular value decompositions. A dearer layer is measured at
  every second, third, ... frequency: exact values, but not all of them."""
