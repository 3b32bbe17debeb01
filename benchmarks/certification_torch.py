"""How many images a second does CERTIFY reach, beside the loop of Cohen et al. in PyTorch?

    python benchmarks/certification_torch.py

ResNet-20 at 32 x 32, N0 = 100 and N = 2,000 samples an image, on all cores. PyTorch runs the published
procedure (repeat the image, add `randn_like` noise, argmax, count) under `inference_mode`, in
channels-last layout. Each side runs at the batch that is best for it among five. Both in turn, one
process, the median of the ratios of neighbouring runs with its 95% interval. Weights are random: they
cost the same.
"""

import argparse
import os

import common
import jax
import jax.numpy as jnp
import numpy as np

from certjax import certify, models, smoothing

NUM_SELECTION, NUM_SAMPLES, SIGMA = 100, 2000, 0.25
BATCHES = (50, 100, 200, 400, 1000)


def ours(chunk):
  """CERTIFY of one image; device part and proof."""
  module = models.build('resnet20', num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
  x = np.random.default_rng(0).uniform(0, 1, (1, 32, 32, 3)).astype(np.float32)
  model_fn = models.bind(module, module.init(jax.random.key(0), jnp.asarray(x)))
  noise = smoothing.gaussian(sigma=SIGMA)
  return lambda: certify.sampled(
    jax.random.key(0), model_fn, noise, x, num_selection=NUM_SELECTION, num_samples=NUM_SAMPLES,
    chunk=chunk,
  )  # fmt: skip


def torch_resnet20(torch):
  """The same architecture: option-A shortcuts, 0.27 million parameters."""
  nn = torch.nn

  class Block(nn.Module):
    def __init__(self, inner, outer, stride):
      super().__init__()
      self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
      self.bn1 = nn.BatchNorm2d(outer)
      self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
      self.bn2 = nn.BatchNorm2d(outer)
      self.stride, self.grown = stride, outer - inner

    def forward(self, x):
      y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
      if self.grown:
        half = self.grown // 2
        x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
      return torch.relu(x + y)

  widths = [16] * 4 + [32] * 3 + [64] * 3
  blocks = [Block(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:], strict=False)]
  stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
  return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def theirs(torch, batch):
  """The published loop, and the same bound."""
  net = torch_resnet20(torch).eval().to(memory_format=torch.channels_last)
  x = torch.rand(3, 32, 32)

  def count(number):
    counts = torch.zeros(10, dtype=torch.int64)
    while number > 0:
      size = min(batch, number)
      noisy = x.repeat(size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
      noisy += SIGMA * torch.randn_like(noisy)
      counts += torch.bincount(net((noisy - 0.5) / 0.25).argmax(1), minlength=10)
      number -= size
    return counts.numpy()

  def run():
    with torch.inference_mode():
      candidate = count(NUM_SELECTION).argmax()
      counts = count(NUM_SAMPLES)
    certify.clopper_pearson(counts[candidate], NUM_SAMPLES, alpha=0.001)

  return run


def best_batch(make):
  """(batch, seconds of all): the fastest of `BATCHES` by the best of three runs."""
  tried = {}
  for batch in BATCHES:
    run = make(batch)
    run()
    tried[batch] = min(common.seconds(run) for _ in range(3))
  return min(tried, key=tried.get), tried


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--pairs', type=int, default=20)
  arguments = parser.parse_args()
  import torch

  torch.set_num_threads(os.cpu_count())
  chunk, tried_ours = best_batch(ours)
  batch, tried_torch = best_batch(lambda batch: theirs(torch, batch))
  times = common.interleaved(
    {'ours': ours(chunk), 'torch': theirs(torch, batch)}, pairs=arguments.pairs
  )
  ratio, low, high = common.median_interval(times['torch'] / times['ours'])
  row = {
    'model': 'resnet20',
    'samples an image': NUM_SELECTION + NUM_SAMPLES,
    'ours, images/s': 1 / float(np.median(times['ours'])),
    'torch, images/s': 1 / float(np.median(times['torch'])),
    'torch time / ours': ratio,
    'low': low,
    'high': high,
    'chunk': chunk,
    'batch of torch': batch,
  }
  common.print_table([row])
  question = 'CERTIFY against the loop of Cohen et al. in PyTorch'
  tried = {'ours': tried_ours, 'torch': tried_torch}
  more = {'pairs': arguments.pairs, 'torch': torch.__version__, 'seconds_by_batch': tried}
  common.write_card('certification_torch', question, [row], **more)


if __name__ == '__main__':
  main()
