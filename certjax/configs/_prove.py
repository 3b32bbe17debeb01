"""Ten lines over everything: a model and images in, certificates ready to report out."""

from certjax.configs._methods import METHODS, build_smoothing


def prove(
  model_fn, x, y, *, method='gaussian', key=None, num_selection=100, num_samples=10_000, alpha=1e-3,
  runner_up=False, chunk=1000, **parameters,
):  # fmt: skip
  """Certifies labelled images by a method of the table.

  Args:
    model_fn: `x~[chunk, ...] -> logits[chunk, K]`, any function JAX can trace.
    x: float[B, H, W, C] in [0, 1], or uint8.
    y: int[B], the true labels.
    method: a key of `configs.METHODS`.
    key: one typed key; default `jax.random.key(0)`.
    num_selection, num_samples, alpha, runner_up, chunk: as in `certify.sampled`.
    **parameters: of the method, such as `sigma`.

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

  from certjax import certify, data, report

  smoothing = build_smoothing(method, **parameters)
  x = data.check_images(x)
  x = data.to_float(x) if x.dtype == np.uint8 else x.astype(np.float32)
  y = np.asarray(y)
  if y.shape != (len(x),) or y.dtype.kind not in 'iu':
    raise ValueError(
      f'`y` must be int[B], one label an image, got {y.dtype}{list(y.shape)} for B={len(x)}.'
    )
  proof = certify.sampled(
    jax.random.key(0) if key is None else key, model_fn, smoothing, x,
    num_selection=num_selection, num_samples=num_samples, alpha=alpha, runner_up=runner_up,
    chunk=chunk,
  )  # fmt: skip
  row = METHODS[method]
  header = {'norm': row.norm, 'unit': row.unit, 'quantifier': row.quantifier, 'alpha': alpha}
  index = np.arange(len(x))
  return report.Run(method, index, y.astype(np.int64), proof, header=header)
