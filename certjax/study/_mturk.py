"""A study as Human Intelligence Tasks: one ExternalQuestion a batch.

Mechanical Turk shows the page in a frame and adds `assignmentId`, `workerId` and `turkSubmitTo` to its address;
the page then sends its answers there, in a form field named `answers`.
"""

import json
import pathlib
import urllib.parse
from xml.sax import saxutils

_NAMESPACE = (
  'http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd'
)
_FRAME_HEIGHT = 760
_SECONDS_TO_ANSWER = 20  # A pair, generously.


def external_question(url, batch) -> str:
  """The XML of one batch.

  Args:
    url: of the page, https://...
    batch: its number, from 1.

  Raises:
    ValueError: unless the address is one that Mechanical Turk shows.

  Example:
    >>> '<ExternalURL>https://a.org/?s=1&amp;batch=2</ExternalURL>' in external_question('https://a.org/?s=1', 2)
    True
  """
  parts = urllib.parse.urlsplit(url)
  if parts.scheme != 'https' or not parts.netloc or parts.fragment:
    raise ValueError(f'`url` must be https://HOST/..., as Mechanical Turk demands, got {url!r}.')
  query = f'{parts.query}&batch={batch}' if parts.query else f'batch={batch}'
  address = saxutils.escape(urllib.parse.urlunsplit(parts._replace(query=query)))
  return (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<ExternalQuestion xmlns="{_NAMESPACE}">\n'
    f'  <ExternalURL>{address}</ExternalURL>\n'
    f'  <FrameHeight>{_FRAME_HEIGHT}</FrameHeight>\n'
    '</ExternalQuestion>\n'
  )


def write_questions(directory, settings, url):
  """Writes `question-001.xml` and so on, and `hit.json`, arguments of MTurk's CreateHIT.

  Args:
    directory: made where missing.
    settings: of the study.
    url: as in `external_question`.

  Raises:
    ValueError: as `external_question`.
    OSError: if a file cannot be written.
  """
  batches = settings['batches']
  questions = [external_question(url, number + 1) for number in range(len(batches))]
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  for number, question in enumerate(questions):
    (directory / f'question-{number + 1:03}.xml').write_text(question, encoding='utf-8')
  shown = 2 * settings['seconds'] + settings['gap'] + _SECONDS_TO_ANSWER
  hit = {
    'Title': settings['title'], 'Description': settings['instructions'].split('\n')[0],
    'Keywords': 'images, comparison', 'Reward': f'{settings["price"] * len(batches[0]):.2f}',
    'AssignmentDurationInSeconds': round(shown * len(batches[0])),
  }  # fmt: skip
  (directory / 'hit.json').write_text(json.dumps(hit, indent=1) + '\n', encoding='utf-8')
