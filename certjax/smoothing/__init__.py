"""How an input is perturbed, and what radius that buys; one distribution a file."""

from certjax.smoothing._gaussian import gaussian
from certjax.smoothing._protocol import Smoothing

__all__ = ['Smoothing', 'gaussian']
