"""Ten lines over everything: a model and images in, certificates ready to report out."""

from certjax.configs._methods import METHODS, build_smoothing


def prove(
  model_fn, x, y, *, method='gaussian', key=None, num_selection=100, num_samples=10_000, alpha=1e-3,
  runner_up=False, chunk=1000, **parameters,
):  # fmt: skip
  """Certifies labelled images by a method of the table.

  Args:
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`, any function JAX can trace; for 'lipschitz' a
      network bound to its weights (`models.bind`) that states its constant; for 'ibp', 'crown-ibp',
      'crown', 'patch-ibp' and 'sparse-ibp' one whose steps `bounds` know; for 'crc' a `models.MLP` bound to its weights,
      for 'patchguard' a `models.BagNet`.
    x: float[B, H, W, C] in [0, 1], or uint8.
    y: int[B], the true labels.
    method: a key of `configs.METHODS`.
    key: one typed key; default `jax.random.key(0)`.
    num_selection, num_samples, alpha, runner_up, chunk: as in `certify.sampled`; exact
      methods use the chunk at most.
    **parameters: of the method, such as `sigma`, or `eps` of bounds.

  Returns:
    A `report.Run`: `.certificate` has labels and radii; `report.markdown(report.table([run]))`
    prints the certified accuracy.

  Raises:
    ValueError: on bad arguments, before any work.

  Example:
    >>> import jax.numpy as jnp
    >>> model_fn = lambda x: jnp.stack([x.mean((1, 2, 3)), 0.5 + 0 * x[:, 0, 0, 0]], axis=1)
    >>> run = prove(model_fn, jnp.ones((1, 4, 4, 1)), [0], sigma=0.25, num_samples=1000, chunk=100)
    >>> run.certificate.label.tolist(), bool(run.certificate.radius[0] <= 0.5 * 4)
    ([0], True)
  """
  import jax
  import numpy as np

  from certjax import certify, data, evaluate, report

  x = data.check_images(x)
  smoothing = build_smoothing(method, shape=x.shape[1:], **parameters)
  exact = evaluate.is_exact(smoothing)
  sampling = {} if exact else {
    'num_samples': num_samples, 'alpha': alpha, 'num_selection': num_selection,
    'runner_up': runner_up,
  }  # fmt: skip
  evaluate.check_arguments('certify', smoothing, chunk=chunk, **sampling)
  x = data.to_float(x) if x.dtype == np.uint8 else x.astype(np.float32)
  network = None
  if evaluate.is_clean(smoothing):
    network = evaluate.clean_network(model_fn, smoothing, shape=x.shape[1:])
  num_classes = network.num_classes if network else _num_classes(model_fn, smoothing, x, chunk)
  y = data.check_labels(y, num_classes)
  if len(y) != len(x):
    raise ValueError(f'`y` must hold one label an image, got {len(y)} for {len(x)} images.')
  if network:
    proof = evaluate.clean_certificate(network, x)
  elif exact:
    proof = certify.enumerated(model_fn, smoothing, x, chunk=chunk)
  else:
    key = jax.random.key(0) if key is None else key
    proof = certify.sampled(key, model_fn, smoothing, x, chunk=chunk, **sampling)
  header = {
    'norm': smoothing.norm, 'unit': smoothing.unit, 'quantifier': METHODS[method].quantifier,
    **({} if exact else {'alpha': alpha}),
  }  # fmt: skip
  index = np.arange(len(x))
  return report.Run(method, index, y.astype(np.int64), proof, header=header)


def _num_classes(model_fn, smoothing, x, chunk):
  """Columns of the logits, without running the model."""
  import jax

  def logits(key, x):
    return model_fn(jax.vmap(smoothing.sample, (0, None))(jax.random.split(key, chunk), x))

  try:
    return jax.eval_shape(logits, jax.random.key(0), x[0]).shape[-1]
  except Exception as error:  # Whatever the user's model raises: its cause stays visible.
    raise ValueError(
      f'`model_fn` does not take noisy images of shape {x.shape[1:]} in batches of {chunk}: {error}'
    ) from error
