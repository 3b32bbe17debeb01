"""Layers with batched solves train on CPU: XLA's batched LAPACK calls could wait for each other for
ever. In a process of its own, so that a hang is a failure."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, jax, jax.numpy as jnp
from certjax import models
module = models.LipConvNet(10, conv=sys.argv[1], width=4)
x = jnp.ones((4, 28, 28, 1))
variables = jax.jit(module.init)(jax.random.key(0), x)

@jax.jit
def gradient(params, x):
  loss = lambda params: module.apply({**variables, 'params': params}, x).sum()
  return jax.grad(loss)(params)

for _ in range(3):
  jax.block_until_ready(gradient(variables['params'], x))
"""


INIT = """
import jax, jax.numpy as jnp
from certjax import models
module = models.build('resnet9-small-bcop', num_classes=10)
jax.block_until_ready(jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 32, 32, 3))))
"""


def test_initialisation_of_many_orthogonal_matrices_does_not_hang():
  subprocess.run([sys.executable, '-c', INIT], check=True, timeout=150)


@pytest.mark.parametrize('conv', ['cayley', 'bro'])
def test_a_deep_network_does_not_hang(conv):
  subprocess.run([sys.executable, '-c', SCRIPT, conv], check=True, timeout=150)
