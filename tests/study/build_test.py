"""A study on the disk: what participants get tells them nothing, and is whole."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from certjax import study

OPTIONS = {'title': 'T', 'instructions': 'I', 'price': 0.01}


def settings_of(page):
  return json.loads(
    re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1]
  )


def test_the_images_are_those_of_the_pairs(built, batches):
  for number, batch in enumerate(batches):
    for place, pair in enumerate(batch):
      name = study.read_key(built)['settings']['batches'][number][place]
      for end, image in (('1', pair.first), ('2', pair.second)):
        with Image.open(built / 'page' / 'pairs' / f'{name}-{end}.png') as file:
          np.testing.assert_array_equal(np.asarray(file), image[..., 0])
      assert study.read_key(built)['pairs'][name] == pair.truth
  assert len(list((built / 'page' / 'pairs').iterdir())) == 2 * 18


def test_colours_survive(make_condition, tmp_path):
  rng = np.random.default_rng(1)
  made = make_condition()._replace(
    originals=rng.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8),
    adversarials=rng.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8),
  )
  batches = study.compose([made])
  study.build(tmp_path, batches, **OPTIONS)
  with Image.open(tmp_path / 'page' / 'pairs' / '001-01-1.png') as file:
    np.testing.assert_array_equal(np.asarray(file), batches[0][0].first)


def test_the_page_says_nothing_about_the_truth(built):
  assert sorted(path.name for path in (built / 'page').iterdir()) == ['index.html', 'pairs']
  page = (built / 'page' / 'index.html').read_text()
  assert not re.search('sentinel|adversarial|truth|attack|pgd|fgsm|unchanged', page, re.I)
  assert set(settings_of(page)) == {
    'title', 'instructions', 'price', 'seconds', 'gap', 'side', 'pixelated', 'max_batches', 'batches',
  }  # fmt: skip


def test_the_page_asks_nobody_else(built):
  page = (built / 'page' / 'index.html').read_text()
  assert "default-src 'none'" in page
  found = set(re.findall(r'https?://[^\s"\';]+', page))
  assert found == {'https://www.mturk.com', 'https://workersandbox.mturk.com'}
  assert not re.search(r'(src|href)="', page)


def test_text_cannot_end_the_script(built):
  page = (built / 'page' / 'index.html').read_text()
  assert settings_of(page)['title'] == 'Same </script>?'
  assert settings_of(page)['instructions'] == 'Look closely.\nThen answer.'


def test_a_study_is_never_overwritten(built, batches):
  before = {path: path.read_bytes() for path in built.rglob('*') if path.is_file()}
  with pytest.raises(ValueError, match='holds a study already'):
    study.build(built, batches, **OPTIONS)
  assert before == {path: path.read_bytes() for path in built.rglob('*') if path.is_file()}


def test_questions_of_mechanical_turk(batches, tmp_path):
  study.build(tmp_path, batches, **OPTIONS, url='https://example.org/s/?a=1&b=2')
  assert sorted(path.name for path in (tmp_path / 'mturk').iterdir()) == [
    'hit.json', 'question-001.xml', 'question-002.xml',
  ]  # fmt: skip
  root = ElementTree.parse(tmp_path / 'mturk' / 'question-002.xml').getroot()
  schema = '{http://mechanicalturk.amazonaws.com/AWSMechanicalTurkDataSchemas/2006-07-14/ExternalQuestion.xsd}'
  assert root.tag == f'{schema}ExternalQuestion'
  assert [child.tag for child in root] == [f'{schema}ExternalURL', f'{schema}FrameHeight']
  assert root[0].text == 'https://example.org/s/?a=1&b=2&batch=2' and int(root[1].text) > 0
  hit = json.loads((tmp_path / 'mturk' / 'hit.json').read_text())
  assert hit['Reward'] == '0.09' and hit['AssignmentDurationInSeconds'] == round(9 * 24.5)


@pytest.mark.parametrize(
  'url', ['http://example.org', 'example.org/s', 'https://', 'https://a.org/#x']
)
def test_addresses_that_mechanical_turk_refuses(url):
  with pytest.raises(ValueError, match='`url` must be https'):
    study.external_question(url, 1)


@pytest.mark.parametrize(
  'option', [{'price': -1}, {'price': float('nan')}, {'seconds': 0}, {'gap': -1}, {'side': 0}, {'max_batches': 0}]
)  # fmt: skip
def test_numbers_without_meaning(batches, tmp_path, option):
  with pytest.raises(ValueError, match=f'`{next(iter(option))}`'):
    study.build(tmp_path / 'new', batches, **OPTIONS | option)
  assert not (tmp_path / 'new').exists()


def test_keys_that_are_none(built, tmp_path):
  with pytest.raises(ValueError, match='holds no study'):
    study.read_key(tmp_path)
  key = json.loads((built / 'key.json').read_text())
  for text in ('{', '[]', json.dumps(key | {'schema': 2}), json.dumps(key | {'pairs': {}})):
    (built / 'key.json').write_text(text)
    with pytest.raises(ValueError, match='damaged'):
      study.read_key(built)
