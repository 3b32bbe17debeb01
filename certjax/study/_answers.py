"""Answers of one worker to one batch, checked against the key before anybody counts them.

{"worker": "w1", "batch": 1, "answers": [{"pair": "001-01", "answer": "same", "milliseconds": 812}, ...]}
"""

import json
import math
import pathlib
import re

WORKER = re.compile(r'[A-Za-z0-9_-]{1,64}')
_ANSWERS = ('same', 'different')
_LONGEST = 24 * 3600 * 1000  # Milliseconds; a tab may stay open overnight.


def parse_answers(text, key) -> dict:
  """The answers in `text`, if they are those to a whole batch.

  Args:
    text: str or bytes, JSON.
    key: of `read_key`.

  Returns:
    The dict that is shown above.

  Raises:
    ValueError: saying what is wrong.

  Example:
    >>> parse_answers('[]', {'settings': {'batches': []}, 'pairs': {}})
    Traceback (most recent call last):
    ...
    ValueError: answers must be an object of worker, batch, answers.
  """
  try:
    found = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError('answers are no JSON.') from error
  if not isinstance(found, dict) or set(found) != {'worker', 'batch', 'answers'}:
    raise ValueError('answers must be an object of worker, batch, answers.')
  worker, batch, answers = found['worker'], found['batch'], found['answers']
  if not isinstance(worker, str) or not WORKER.fullmatch(worker):
    raise ValueError('worker must be 1 to 64 letters, digits, - or _.')
  batches = key['settings']['batches']
  if type(batch) is not int or not 1 <= batch <= len(batches):
    raise ValueError(f'batch must be a number in 1 .. {len(batches)}.')
  if not isinstance(answers, list) or not all(map(_is_answer, answers)):
    raise ValueError(f'each answer must be a pair, one of {", ".join(_ANSWERS)}, and milliseconds.')
  if sorted(answer['pair'] for answer in answers) != sorted(batches[batch - 1]):
    raise ValueError(f'answers must be to each pair of batch {batch}, once.')
  return found


def read_answers(directories, key) -> list:
  """All answers that lie in `*.json` files of some directories.

  Args:
    directories: paths.
    key: of `read_key`.

  Returns:
    A list as of `parse_answers`, by worker and batch; a file that is there twice counts once.

  Raises:
    ValueError: for a file that holds no answers, two files of one worker and batch that differ, or none at all.
    OSError: if a file cannot be read.

  Example:
    >>> read_answers(['nowhere'], {})
    Traceback (most recent call last):
    ...
    ValueError: `answers`: nowhere is no directory.
  """
  found = {}
  for directory in map(pathlib.Path, directories):
    if not directory.is_dir():
      raise ValueError(f'`answers`: {directory} is no directory.')
    for path in sorted(directory.glob('*.json')):
      try:
        answers = parse_answers(path.read_bytes(), key)
      except ValueError as error:
        raise ValueError(f'{path}: {error} Move it elsewhere.') from error
      place = answers['worker'], answers['batch']
      if found.setdefault(place, answers) != answers:
        raise ValueError(
          f'{path}: other answers of worker {place[0]} to batch {place[1]} are there.'
        )
  if not found:
    raise ValueError(f'`answers`: no *.json in {", ".join(map(str, directories))}.')
  return [found[place] for place in sorted(found)]


def _is_answer(answer):
  if not isinstance(answer, dict) or set(answer) != {'pair', 'answer', 'milliseconds'}:
    return False
  took = answer['milliseconds']
  is_number = isinstance(took, (int, float)) and not isinstance(took, bool)
  timed = is_number and math.isfinite(took) and 0 <= took <= _LONGEST
  return isinstance(answer['pair'], str) and answer['answer'] in _ANSWERS and timed
