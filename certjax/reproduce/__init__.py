"""The tables and figures of the literature, made again: published numbers as data, one recipe each."""

from certjax.reproduce._nouns import (
  ARITHMETIC,
  SCALES,
  Attacks,
  Published,
  Recipe,
  Request,
  Result,
  Row,
  Scale,
  verdict,
)
from certjax.reproduce._published import numbers, published
from certjax.reproduce._recipes import RECIPES, find, listing, reproduce
from certjax.reproduce._recoloring import (
  NETWORK_MEAN,
  NETWORK_STD,
  PENALTY,
  PUBLISHED_SIZES,
  STEP_SIZE,
  STEPS,
  Search,
  after_search,
  published_searches,
)
from certjax.reproduce._shares import accuracy_row, share
from certjax.reproduce._write import cards, command_of, markdown, write

__all__ = [
  'ARITHMETIC',
  'NETWORK_MEAN',
  'NETWORK_STD',
  'PENALTY',
  'PUBLISHED_SIZES',
  'RECIPES',
  'SCALES',
  'STEPS',
  'STEP_SIZE',
  'Attacks',
  'Published',
  'Recipe',
  'Request',
  'Result',
  'Row',
  'Scale',
  'Search',
  'accuracy_row',
  'after_search',
  'cards',
  'command_of',
  'find',
  'listing',
  'markdown',
  'numbers',
  'published',
  'published_searches',
  'reproduce',
  'share',
  'verdict',
  'write',
]
