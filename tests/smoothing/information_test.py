"""Mutual information of image and view, against the sum over all of both."""

import itertools
import math

import numpy as np
import pytest

from certjax import smoothing


def information(images, views, likelihood):
  """Mutual information in bits of a uniform image and its view: likelihood[image, view]."""
  joint = np.array([[likelihood(x, z) for z in views] for x in images]) / len(images)
  apart = joint.sum(axis=0) * joint.sum(axis=1, keepdims=True)
  seen = joint > 0
  return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


@pytest.mark.parametrize('values, keep', [(2, 0), (2, 1), (2, 3), (3, 2)])
def test_ablation(values, keep):
  images = list(itertools.product(range(values), repeat=3))
  views = list(itertools.product([*range(values), None], repeat=3))

  def likelihood(x, z):
    shown = [i for i in range(3) if z[i] is not None]
    agree = all(x[i] == z[i] for i in shown)
    return (len(shown) == keep) * agree / math.comb(3, keep)

  of = smoothing.ablation_information(keep=keep, values=values)
  assert of == pytest.approx(information(images, views, likelihood), abs=1e-12)


@pytest.mark.parametrize('values, keep', [(2, 0.8), (2, 0.5), (2, 1.0), (3, 0.0), (4, 0.6)])
def test_discrete(values, keep):
  images = list(itertools.product(range(values), repeat=2))
  one = lambda a, b: keep if a == b else (1 - keep) / (values - 1)
  both = lambda x, z: one(x[0], z[0]) * one(x[1], z[1])
  of = smoothing.discrete_information(2, keep=keep, values=values)
  assert of == pytest.approx(information(images, images, both), abs=1e-12)


def test_levine_and_feizi_against_lee():
  """MNIST: 45 of 784 pixels tell 360 bits at 8 bits a pixel; Lee's kappa = .8 on binary images tells 218."""
  assert smoothing.ablation_information(keep=45) == 45 * 8
  half = -0.8 * math.log2(0.8) - 0.2 * math.log2(0.2)
  assert smoothing.discrete_information(784, keep=0.8, values=2) == pytest.approx(784 * (1 - half))


@pytest.mark.parametrize(
  'call, said',
  [
    (lambda: smoothing.ablation_information(keep=1.5), '`keep` is a number of pixels'),
    (lambda: smoothing.ablation_information(keep=1, values=1), '`values` of a pixel are 2 or more'),
    (lambda: smoothing.discrete_information(9, keep=1.2), '`keep` is a probability'),
    (lambda: smoothing.discrete_information(-1, keep=0.2), '`num_pixels` must be a whole number'),
  ],
)
def test_bad_numbers(call, said):
  with pytest.raises(ValueError, match=said):
    call()
