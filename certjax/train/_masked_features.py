r"""Training for robust masking (Xiang et al. 2021): the label must win without its best window.

A certificate of robust masking asks that the label's sum survives the loss of windows. So does the
loss: of the label's features the window that speaks most is left out, rivals keep all of theirs.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from certjax.train._copies import Objective, ramp


def masked_features(*, window=6, warmup_steps=0) -> Objective:
  r"""Cross-entropy of summed local features, the label's best window left out.

    loss = CE(s),   s_c = (1 / n) sum of u_c,   s_y = (1 / n) (sum of u_y - e max over windows of its sum),

  with u = max(local logits, 0) of n cells; e grows from 0 to 1 in the warm-up. Networks that begin with
  random weights need one: at e = 1 they first learn to say nothing at all.

  Args:
    window: cells of a window along each axis (at most all of one), ceil((p + r - 1) / stride) for patches
      of p pixels and a receptive field r (`certify.cells_met`).
    warmup_steps: steps until e = 1.

  Returns:
    An `Objective` on clean images. Metrics: 'accuracy' of the whole sums, and 'masked_accuracy', where
    the label's best window is left out.

  Raises:
    ValueError: unless `window` is a whole number, 1 or more; in the first step, for a network without
      local features, and a window as large as its cells.

  Example:
    >>> objective = masked_features(window=7)  # Of the network 'bagnet-small', for patches of 5 pixels.

  References:
    Xiang et al. 2021 (arXiv:2005.10884), section 4.3.
  """
  if not 1 <= window < float('inf') or window != int(window):
    raise ValueError(f'`window` must be a whole number of cells, 1 or more, got {window}.')
  window = int(window)

  def loss(keys, apply, x, y, step):
    del keys
    cells, statistics = _local_logits(apply, x)
    _check(cells, window)
    whole, masked = jax.vmap(lambda cells, y: _scores(cells, y, window))(cells, y)
    # Deviation: the warm-up; the paper begins with trained networks.
    share_left_out = ramp(step, warmup_steps)
    log_p = jax.nn.log_softmax(whole + share_left_out * (masked - whole))
    log_p = jnp.take_along_axis(log_p, y[:, None], axis=-1)
    share = lambda scores: jnp.mean((jnp.argmax(scores, axis=-1) == y).astype(jnp.float32))
    metrics = {'accuracy': share(whole), 'masked_accuracy': share(masked)}
    return -jnp.mean(log_p), (metrics, statistics)

  return Objective(loss, None)


def _scores(cells, y, window):
  """float[K] twice, of one image's cells[h, w, K]: means, and those without the label's best window."""
  features = jax.nn.relu(cells)
  means = jnp.mean(features, axis=(0, 1))
  size = tuple(min(window, n) for n in cells.shape[:2])
  sums = jax.lax.reduce_window(features[..., y], 0.0, jax.lax.add, size, (1, 1), 'VALID')
  return means, means.at[y].add(-jnp.max(sums) / (cells.shape[0] * cells.shape[1]))


def _local_logits(apply, x):
  """(float[B, h, w, K], statistics) of a pass in training mode.

  `apply` returns means over cells; what the cells say is read as the network computes it.
  """
  found = []

  def keep(call, arguments, options, context):
    result = call(*arguments, **options)
    if context.method_name == 'local_logits':
      found.append(result)
    return result

  with nn.intercept_methods(keep):
    _, statistics = apply(x, True)
  if not found:
    raise ValueError(
      "`objective`='masked-features' needs a network of local features (bagnet-small, bagnet17 and the "
      'like): choose such a `model`, or another objective.'
    )
  return found[-1], statistics


def _check(cells, window):
  if window >= max(cells.shape[1:3]):
    raise ValueError(
      f'`window`={window} leaves none of the {cells.shape[1]} x {cells.shape[2]} cells: choose a smaller '
      f'one.'
    )
