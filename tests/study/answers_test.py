"""Answers are whole and to the pairs of their batch, or refused."""

import json

import pytest

from certjax import study


def test_what_the_page_sends_is_taken(built, answer):
  key = study.read_key(built)
  sent = answer(key, 'w-1', 2)
  assert study.parse_answers(json.dumps(sent), key) == sent
  assert study.parse_answers(json.dumps(sent).encode(), key) == sent


@pytest.mark.parametrize(
  'change',
  [
    {'worker': ''}, {'worker': 'a/b'}, {'worker': 'a' * 65}, {'worker': 'w\n'}, {'worker': 3}, {'batch': 0},
    {'batch': 3}, {'batch': True}, {'batch': '1'}, {'answers': []}, {'answers': None}, {'more': 1},
  ],
)  # fmt: skip
def test_bad_fields(built, answer, change):
  key = study.read_key(built)
  with pytest.raises(ValueError):
    study.parse_answers(json.dumps(answer(key, 'w1', 1) | change), key)


@pytest.mark.parametrize(
  'change',
  [
    {'answer': 'Same'}, {'answer': None}, {'milliseconds': -1}, {'milliseconds': float('nan')},
    {'milliseconds': True}, {'milliseconds': '5'}, {'pair': '001-02'}, {'pair': '002-01'}, {'pair': 1}, {'x': 1},
  ],
)  # fmt: skip
def test_bad_answers(built, answer, change):
  key = study.read_key(built)
  sent = answer(key, 'w1', 1)
  sent['answers'][0] |= change
  with pytest.raises(ValueError):
    study.parse_answers(json.dumps(sent), key)


@pytest.mark.parametrize('text', ['', '{', 'null', b'\xff', '[' * 100_000, '"a"'])
def test_no_answers_at_all(built, text):
  with pytest.raises(ValueError, match='answers'):
    study.parse_answers(text, study.read_key(built))


def test_directories_are_joined(built, answer, tmp_path):
  key = study.read_key(built)
  one, two = tmp_path / 'one', tmp_path / 'two'
  for place, name, sent in (
    (one, 'b.json', answer(key, 'w1', 2)), (one, 'a.json', answer(key, 'w2', 1)),
    (two, 'saved.json', answer(key, 'w1', 1)), (two, 'again.json', answer(key, 'w2', 1)),
  ):  # fmt: skip
    place.mkdir(exist_ok=True)
    (place / name).write_text(json.dumps(sent))
  found = study.read_answers([one, two], key)
  assert [(each['worker'], each['batch']) for each in found] == [('w1', 1), ('w1', 2), ('w2', 1)]
  (two / 'other.json').write_text(json.dumps(answer(key, 'w1', 1, lambda truth: True)))
  with pytest.raises(ValueError, match='saved.json: other answers of worker w1 to batch 1'):
    study.read_answers([one, two], key)
  (two / 'other.json').write_text('{}')
  with pytest.raises(ValueError, match='other.json.*Move it'):
    study.read_answers([two], key)
  with pytest.raises(ValueError, match='no directory'):
    study.read_answers([tmp_path / 'three'], key)
