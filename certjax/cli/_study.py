"""`certjax study`: a page from stored attacks, a local endpoint for it, the analysis of the answers."""

from collections.abc import Callable

from certjax import configs
from certjax.cli import _parse, _progress, _stored

_WINDOW = 11  # Side of the window of SSIM: smaller images have none.
_NORMS = ('l2', 'linf')


def study(arguments):
  """`certjax study build ATTACK... | serve STUDY | analyse STUDY`."""
  actions = {'build': _build, 'serve': _serve, 'analyse': _analyse}
  if arguments and arguments[0] in ('-h', '--help'):
    print(
      f'usage: certjax study {{{",".join(actions)}}} ... (certjax study build --help explains every option)'
    )
    return
  if not arguments or arguments[0] not in actions:
    got = repr(arguments[0]) if arguments else 'nothing'
    raise ValueError(f'`certjax study` begins with one of {", ".join(actions)}; got {got}.')
  actions[arguments[0]](arguments[1:])


def _build(arguments):
  from certjax import study as studies

  config = _parse.parse(configs.StudyBuild, 'study build', arguments)
  _parse.check_seed(config.seed)
  if config.max_pairs is not None and config.max_pairs < 1:
    raise ValueError(f'`max_pairs` must be at least 1, got {config.max_pairs}.')
  if (config.out / studies.KEY).exists():
    raise ValueError(
      f'`out`={config.out} holds a study already: remove it, or choose another directory.'
    )
  conditions = _conditions(config)
  batches = studies.compose(
    conditions, batch_size=config.batch_size, num_identical=config.num_identical,
    num_sentinels=config.num_sentinels, noise=config.sentinel_noise, seed=config.seed,
  )  # fmt: skip
  page = studies.build(
    config.out, batches, title=config.title, instructions=config.instructions, price=config.price,
    seconds=config.seconds, gap=config.gap, side=config.side, max_batches=config.max_batches,
    url=config.url,
  )  # fmt: skip
  _say(conditions, batches, page, config)


def _say(conditions, batches, page, config):
  for one in conditions:
    lost = int((one.originals == one.adversarials).all(axis=(1, 2, 3)).sum())
    print(f'{one.attack} {one.bound:g}: {len(one.index)} pairs')
    if lost:
      _progress.warn(f'{one.attack} {one.bound:g}: {lost} pairs are equal once rounded to 8 bits.')
  print(f'{len(batches)} batches of {config.batch_size}: {page}')
  print(f'try it: certjax study serve {config.out}')


def _serve(arguments):
  from certjax import study as studies

  config = _parse.parse(configs.StudyServe, 'study serve', arguments)
  with studies.make_server(config.study, port=config.port) as server:
    print(f'http://127.0.0.1:{server.server_port}/', flush=True)
    try:
      server.serve_forever()
    except KeyboardInterrupt:  # The usual end.
      print(f'answers are in {config.study / studies.ANSWERS}')


def _analyse(arguments):
  from certjax import study as studies

  config = _parse.parse(configs.StudyAnalyse, 'study analyse', arguments)
  key = studies.read_key(config.study)
  answers = studies.read_answers(config.answers or (config.study / studies.ANSWERS,), key)
  summary = studies.analyse(answers, key, threshold=config.threshold, level=config.level)
  out = config.out or config.study / 'analysis'
  print(studies.write_study(summary, studies.answer_rows(answers, key), out))
  print(f'written to {out}')


def _conditions(config):
  """A `study.Condition` for each attack of each directory."""
  stored = [one for directory in config.attacks for one in _stored.find(directory)]
  if len({one.dataset for one in stored}) > 1:
    raise ValueError(
      f'`attacks` must be of one data set, got {sorted({one.dataset for one in stored})}.'
    )
  names = [(_named(one), one.bound) for one in stored]
  if len(set(names)) < len(names):
    raise ValueError(f'`attacks` hold one attack and bound twice: {names}.')
  images = _stored.source_of(stored[0], config.data_dir)
  distances = _distances(config, images)
  return [_condition(one, images, distances, config.max_pairs) for one in stored]


def _condition(stored, source, distances, max_pairs):
  import numpy as np

  from certjax import evaluate, study

  broken = evaluate.broken(stored.directory, max_pairs)
  if not len(broken.index):
    raise ValueError(
      f'{stored.directory}: the attack broke no image, and there is nothing to show.'
    )
  images = _stored.originals(stored, broken, source)
  shown = np.rint(255 * broken.x_adv).astype(np.uint8)  # Distances are those of what people see.
  measured = {name: measure(images.images, shown) for name, measure in distances.items()}
  labels = np.asarray(images.labels, np.int64)
  return study.Condition(
    _named(stored), stored.bound, stored.unit, broken.index, labels, images.images, shown, measured
  )


def _named(stored):
  return f'{stored.attack}-{stored.norm}'


def _distances(config, source):
  """Name -> (uint8[B, H, W, C], the same) -> float64[B]."""
  import numpy as np

  from certjax import data, distances, train
  from certjax.evaluate import host_distance

  def of_norm(norm, x, x_adv):
    pairs = zip(data.to_float(x), data.to_float(x_adv), strict=True)
    return np.array([host_distance(norm, *pair) for pair in pairs])

  measures: dict[str, Callable] = {
    norm: lambda x, x_adv, norm=norm: of_norm(norm, x, x_adv) for norm in _NORMS
  }
  if min(source.spec.shape[:2]) >= _WINDOW:
    ssim = distances.ssim()
    measures['ssim'] = lambda x, x_adv: np.float64(distances.between(ssim, x, x_adv))
  for name, run in config.features.items():
    measure = distances.lpips(train.load_features(run, source.spec.shape).feature_fn)
    measures[f'lpips_{name}'] = lambda x, x_adv, measure=measure: np.float64(
      distances.between(measure, x, x_adv)
    )
  return measures
