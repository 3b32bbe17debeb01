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
from certjax.reproduce._shares import accuracy_row, share
from certjax.reproduce._write import cards, command_of, markdown, write

__all__ = [
  'ARITHMETIC',
  'RECIPES',
  'SCALES',
  'Attacks',
  'Published',
  'Recipe',
  'Request',
  'Result',
  'Row',
  'Scale',
  'accuracy_row',
  'cards',
  'command_of',
  'find',
  'listing',
  'markdown',
  'numbers',
  'published',
  'reproduce',
  'share',
  'verdict',
  'write',
]
