"""What `certjax attack` climbs, and measures again, where the threat is more than a norm of pixels."""

from certjax import configs

_OWN = 'the attacked network'


def prepare(config, threat, target, model_fn, images):
  """(what attacks climb, the set that stored images must lie in, entries of the header).

  Args:
    config: a `configs.Attack`.
    threat: of `configs.threat_of`.
    target: the `Target` that is judged.
    model_fn: the attacked network.
    images: `data.Images` or `data.Stream`.

  Raises:
    ValueError: for a threat that this model or these images cannot be attacked with.
  """
  from certjax import evaluate

  if isinstance(threat, configs.Perceptual):
    return _perceptual(config, target, model_fn, images)
  if not hasattr(threat, 'decode'):
    return target, threat, {}
  _check_grid(config, target)
  _check_shape(threat, images)
  reach = evaluate.latent_set(config.norm, threat, batch_size=config.batch_size)
  return target, reach, {}


def _perceptual(config, target, model_fn, images):
  from certjax import evaluate, models

  _check_grid(config, target)
  if config.features is not None:
    feature_fn, measured = _measure(config.features, images)
  elif target.model_fn is not model_fn:
    raise ValueError(
      '`norm` lpips: a smoothed model has no features of its own: give `--features RUN`, a network that '
      'measures, or attack the network inside (`--method none`).'
    )
  elif models.module_of(model_fn) is None:
    raise ValueError(
      '`norm` lpips reads features of a network of certjax, and this model is none (or in bfloat16): give '
      '`--features RUN`, a training run that measures.'
    )
  else:
    feature_fn, measured = models.features_of(model_fn), _OWN
  climbed = evaluate.perceptual_target(target, feature_fn, own=measured is _OWN)
  reach = evaluate.perceptual_set(config.eps, feature_fn, batch_size=config.batch_size)
  return climbed, reach, {'features': measured}


def _measure(run, images):
  """The `train.Measure` of a run for these images."""
  from certjax import data, train

  return train.load_features(run, data.take(images, slice(1)).images.shape[1:])


def _check_grid(config, target):
  if target.grid is not None:
    raise ValueError(
      f'`norm` {config.norm}: this classifier is defined on multiples of 1 / {target.grid} alone, which '
      f'its images are not: attack the network inside (`--method none`).'
    )


def _check_shape(threat, images):
  """Refuses images that the threat cannot change, before anything is written."""
  import jax

  from certjax import data

  x = data.to_float(data.take(images, slice(1)).images)[0]
  jax.eval_shape(lambda key, x: threat.decode(x, threat.init(key, x)), jax.random.key(0), x)
