"""A study on the disk: a page that may be put on any server, and beside it the key that may not.

OUT/page/index.html, OUT/page/pairs/*.png   what participants see; needs no server of its own
OUT/key.json                                what each pair is
OUT/answers/                                what `serve` receives
OUT/mturk/                                  with a URL: one ExternalQuestion a batch, and the settings of the HITs
"""

import json
import pathlib

from certjax.study._mturk import external_question, write_questions
from certjax.study._page import page
from certjax.study._pairs import pair_name

SCHEMA = 1
KEY, PAGE, ANSWERS = 'key.json', 'page', 'answers'
_SMALL = 2  # Images that are enlarged more than this show their pixels as squares.


def build(
  out, batches, *, title, instructions, price, seconds=2.0, gap=0.5, side=384, max_batches=20, url=None
):  # fmt: skip
  """Writes a study.

  Args:
    out: a directory, made where missing; a study that is there already is left alone.
    batches: of `compose`.
    title: of the page.
    instructions: what a participant is told, before the first pair.
    price: what is paid for a pair, in dollars.
    seconds: that each image is shown.
    gap: seconds of grey between the two; without it a change shows as a flicker.
    side: of the images on the screen, in CSS pixels.
    max_batches: that one worker may do.
    url: where the page will lie, https://..., for Mechanical Turk; or None.

  Returns:
    The path of the page.

  Raises:
    ValueError: if `out` holds a study, for a bad `url`, or for a number that has no meaning.
    OSError: if a file cannot be written.

  Example:
    >>> import tempfile
    >>> import numpy as np
    >>> from certjax import study
    >>> x = np.zeros((2, 8, 8, 1), np.uint8)
    >>> pgd = study.Condition('pgd', 0.1, 'pixel value', np.arange(2), np.arange(2), x, x + np.uint8(9), {})
    >>> batches = study.compose([pgd], batch_size=5, num_identical=1, num_sentinels=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   page = build(folder, batches, title='Same?', instructions='Look.', price=0.01)
    ...   page.name, len(read_key(folder)['pairs'])
    ('index.html', 5)
  """
  _check(price, seconds, gap, side, max_batches)
  if url is not None:
    external_question(url, 1)  # Its complaint comes before anything is written.
  out = pathlib.Path(out)
  if (out / KEY).exists():
    raise ValueError(f'`out`={out} holds a study already: remove it, or choose another directory.')
  names = [[pair_name(b, p) for p in range(len(batch))] for b, batch in enumerate(batches)]
  height = batches[0][0].first.shape[0]
  settings = {
    'title': title, 'instructions': instructions, 'price': price, 'seconds': seconds, 'gap': gap,
    'side': side, 'pixelated': side > _SMALL * height, 'max_batches': max_batches,
    'batches': names,
  }  # fmt: skip
  (out / PAGE / 'pairs').mkdir(parents=True, exist_ok=True)
  for row, batch in zip(names, batches, strict=True):
    for name, pair in zip(row, batch, strict=True):
      _write_png(out / PAGE / 'pairs' / f'{name}-1.png', pair.first)
      _write_png(out / PAGE / 'pairs' / f'{name}-2.png', pair.second)
  (out / PAGE / 'index.html').write_text(page(settings), encoding='utf-8')
  if url is not None:
    write_questions(out / 'mturk', settings, url)
  _write_key(out / KEY, settings, batches)
  return out / PAGE / 'index.html'


def read_key(directory) -> dict:
  """The key of a study.

  Args:
    directory: that `build` wrote.

  Returns:
    A dict: schema, settings (those of the page, `batches` of names among them), pairs (name -> truth).

  Raises:
    ValueError: if there is no study, or its key is damaged.

  Example:
    >>> read_key('nowhere')
    Traceback (most recent call last):
    ...
    ValueError: nowhere holds no study: `certjax study build` makes one.
  """
  path = pathlib.Path(directory) / KEY
  try:
    key = json.loads(path.read_text(encoding='utf-8'))
    named = {name for batch in key['settings']['batches'] for name in batch}
    whole = key['schema'] == SCHEMA and named == set(key['pairs'])
  except (FileNotFoundError, NotADirectoryError) as error:
    raise ValueError(f'{directory} holds no study: `certjax study build` makes one.') from error
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f'{path} is damaged: restore it from a copy.') from error
  if not whole:
    raise ValueError(f'{path} is damaged, or of another schema than {SCHEMA}.')
  return key


def _write_key(path, settings, batches):
  """Last of all: a study without a key is not finished."""
  pairs = {
    name: pair.truth
    for row, batch in zip(settings['batches'], batches, strict=True)
    for name, pair in zip(row, batch, strict=True)
  }
  key = {'schema': SCHEMA, 'settings': settings, 'pairs': pairs}
  path.write_text(json.dumps(key, indent=1, allow_nan=False) + '\n', encoding='utf-8')


def _write_png(path, image):
  from PIL import Image

  image = image[..., 0] if image.shape[-1] == 1 else image
  Image.fromarray(image).save(path, format='PNG')


def _check(price, seconds, gap, side, max_batches):
  if not 0 <= price < float('inf'):
    raise ValueError(f'`price` is dollars a pair, 0 or more, got {price}.')
  if not 0 < seconds <= 60 or not 0 <= gap <= 60:
    raise ValueError(
      f'`seconds` must lie in (0, 60] and `gap` in [0, 60], got {seconds} and {gap}: both are in seconds.'
    )
  for name, value in (('side', side), ('max_batches', max_batches)):
    if value < 1:
      raise ValueError(f'`{name}` must be at least 1, got {value}.')
