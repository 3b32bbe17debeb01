"""The commands that need JAX: train, certify, predict, quickstart, doctor."""

import dataclasses
import pathlib
import socket
import time

import tyro

from certjax import configs
from certjax.cli import _progress

_NOT_IN_RECORDS = ('run', 'out', 'data_dir')  # Places may move; what is there is hashed.


def train(arguments):
  """`certjax train PRESET [options]`."""
  config = tyro.extras.overridable_config_cli(
    configs.PRESETS, prog='certjax train', args=arguments, description=configs.Train.__doc__
  )
  _train(config)
  print(f'next: certjax certify {config.out}')


def certify(arguments):
  """`certjax certify RUN [options]`."""
  config = _parse(configs.Certify, 'certify', arguments)
  out = _certify(config)
  _print_report(out)
  print(f'records, table.md, table.csv and curve.png are in {out}')


def predict(arguments):
  """`certjax predict RUN [options]`."""
  config = _parse(configs.Predict, 'predict', arguments)
  config = dataclasses.replace(config, out=config.out or str(pathlib.Path(config.run) / 'predict'))
  out = _records('predict', config)
  from certjax import records

  _, lines = records.read(out)
  abstained = sum(line['predict'] < 0 for line in lines)
  correct = sum(line['predict'] == line['label'] for line in lines)
  wrong = len(lines) - abstained - correct
  print(f'{len(lines)} images: {correct} correct, {wrong} wrong, {abstained} abstained')
  print(f'each prediction is not the smoothed classifier\'s with probability at most {config.alpha:g}')


def quickstart(arguments):
  """`certjax quickstart`: the main job on real digits."""
  config = _parse(configs.Quickstart, 'quickstart', arguments)
  begun = time.perf_counter()
  _, preset = configs.PRESETS['digits']
  _train(
    dataclasses.replace(preset, out=config.out, sigma=config.sigma, data_dir=config.data_dir)
  )
  out = _certify(
    configs.Certify(
      run=config.out, num_samples=config.num_samples, evenly=config.num_images,
      data_dir=config.data_dir,
    )
  )  # fmt: skip
  _print_report(out)
  print(f'done in {time.perf_counter() - begun:.0f} s; everything is in {out}:')
  print('  config.json, checkpoints/   the trained model')
  print('  records.jsonl               one line an image: label, radius, votes')
  print('  table.md, table.csv, curve.png')
  print('what to run next:')
  print(f'  certjax predict {out}                          # classify with the smoothed model')
  print(f'  certjax certify {out} --sigma 0.12 --out {out}-0.12 --num-samples 10000')
  print(f'  certjax report {out} {out}-0.12 --compare      # which noise certifies more?')
  print('  certjax train --help                           # MNIST and CIFAR-10 presets')


def doctor(arguments):
  """`certjax doctor`."""
  config = _parse(configs.Doctor, 'doctor', arguments)
  import jax
  import jax.numpy as jnp
  import numpy as np

  from certjax import certify, smoothing

  for name in ('jax', 'jaxlib', 'flax', 'optax', 'orbax.checkpoint', 'numpy', 'scipy'):
    print(f'{name:<17} {__import__(name, fromlist=["__version__"]).__version__}')
  print(f'{"devices":<17} {", ".join(str(device) for device in jax.local_devices())}')
  w = np.arange(1.0, 65.0) / np.linalg.norm(np.arange(1.0, 65.0))
  model_fn = lambda x: jnp.stack([x @ w.astype(np.float32), jnp.zeros(len(x))], axis=1)
  proof = certify.sampled(
    jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.25), 0.3 * w[None], num_samples=10_000,
    chunk=config.chunk,
  )  # fmt: skip
  radius = float(proof.radius[0])
  print(f'self-test         linear classifier at distance 0.3: certified radius {radius:.4f}')
  if not 0.25 < radius <= 0.3:
    raise ValueError(f'the self-test certificate must lie in (0.25, 0.3], got {radius}.')
  _speed_line(config.chunk)


def _speed_line(chunk):
  import jax
  import numpy as np

  from certjax import certify, models, smoothing

  module = models.build('digits-cnn', num_classes=10)
  x = np.zeros((1, 8, 8, 1), np.float32)
  model_fn = models.bind(module, module.init(jax.random.key(0), x))
  draw = lambda number: certify.votes(
    jax.random.key(0), model_fn, smoothing.gaussian(sigma=0.25), x, num_samples=number, chunk=chunk
  )
  draw(chunk)
  begun = time.perf_counter()
  draw(100 * chunk)
  rate = 100 * chunk / (time.perf_counter() - begun)
  print(f'speed             {rate:,.0f} noisy 8x8 images a second through the digits CNN')


def _parse(config, command, arguments):
  return tyro.cli(
    tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(config),
    prog=f'certjax {command}',
    args=arguments,
  )


def _train(config):
  smoothing = None
  if config.method != 'none':
    smoothing = configs.build_smoothing(config.method, sigma=config.sigma)
  from certjax import train

  with _progress.bar('training', 'steps') as bar:
    train.run(
      config,
      smoothing,
      on_start=bar.start,
      on_log=lambda step, metrics: bar.at(step, f'loss {metrics["loss"]:.4f}'),
    )


def _certify(config):
  config = dataclasses.replace(config, out=config.out or config.run)
  return _records('certify', config)


def _records(kind, config):
  """Writes the records of a certification or prediction run; returns its directory."""
  import jax

  from certjax import certify, data, evaluate, records, train

  if kind == 'certify' and config.sigma is not None:
    configs.build_smoothing(config.method, sigma=config.sigma)  # Refuse before loading anything.
  trained = train.load_run(config.run)
  sigma = config.sigma if config.sigma is not None else trained.config['sigma']
  config = dataclasses.replace(config, sigma=sigma)
  smoothing = configs.build_smoothing(config.method, sigma=sigma)
  images = _images(config, trained.config)
  settings = {
    key: value for key, value in dataclasses.asdict(config).items() if key not in _NOT_IN_RECORDS
  }
  settings['dataset'] = trained.config['dataset']
  arguments = {'num_samples': config.num_samples, 'alpha': config.alpha, 'chunk': config.chunk}
  if kind == 'certify':
    certify.check_num_samples(
      smoothing, config.num_samples, config.alpha, runner_up=config.runner_up
    )
    arguments |= {'num_selection': config.num_selection, 'runner_up': config.runner_up}
    make = evaluate.certified_records
  else:
    certify.check_predict_samples(config.num_samples, config.alpha)
    make = evaluate.predicted_records
  header = evaluate.header(
    kind, settings, configs.METHODS[config.method], trained.variables, images
  )
  finished = records.start(config.out, header)
  if len(finished) < len(images.index):
    for warning in evaluate.sanity_warnings(
      trained.model_fn, smoothing, data.to_float(images.images[:4]), num_samples=config.num_samples,
      alpha=config.alpha, sigma=sigma, training_sigma=trained.config['sigma'],
    ):  # fmt: skip
      _progress.warn(warning)
  rest = data.Images(*(array[len(finished) :] for array in images))
  key = jax.random.key(config.seed)
  host, device = socket.gethostname(), str(jax.local_devices()[0].device_kind)
  title = {'certify': 'certifying', 'predict': 'predicting'}[kind]
  with _progress.bar(title, 'images') as bar:
    bar.start(len(finished), len(images.index))
    if len(rest.index):
      for record, seconds in make(key, trained.model_fn, smoothing, rest, **arguments):
        timing = {'seconds': round(seconds, 6), 'host': host, 'device': device}
        records.append(config.out, record, timing)
        bar.advance()
  return config.out


def _images(config, training):
  from certjax import data

  name, split = training['dataset'], config.split
  data_dir = config.data_dir or training['data_dir']
  indices = data.subset(
    len(data.source(name, split, data_dir)),
    skip=config.skip, max_images=config.max_images, evenly=config.evenly,
  )  # fmt: skip
  images = data.load(name, split, data_dir=data_dir, indices=indices)
  data.check_images(images.images, name=f'{name} {split}', shape=data.dataset(name).shape)
  data.check_labels(images.labels, data.dataset(name).num_classes, name=f'{name} {split} labels')
  return images


def _print_report(out):
  from certjax import report

  print()
  print(report.write([report.load(out)], out))
