"""A journal directory of the test's own, and records whose decimals are awkward."""

import math
from types import SimpleNamespace

import pytest

from certjax.records import _lock


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  """No journal outside the test; a lease that need not settle."""
  directory = tmp_path_factory.mktemp('cache')
  monkeypatch.setenv('XDG_CACHE_HOME', str(directory))
  monkeypatch.setattr(_lock, '_SETTLE_SECONDS', 0.0)
  return directory


@pytest.fixture
def run():
  """`run.header`, `run.record(index)`, `run.timing(index)`."""
  header = {'method': {'name': 'gaussian', 'sigma': 0.25}, 'alpha': 0.001, 'num_images': 20}

  def record(index):
    radius = math.inf if index == 3 else math.sqrt(index + 0.1) / 3
    return {'index': index, 'label': index % 10, 'predict': index % 10, 'radius': radius}

  return SimpleNamespace(
    header=header, record=record, timing=lambda index: {'seconds': index / 8, 'host': 'a'}
  )
