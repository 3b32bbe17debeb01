"""The page of a report: well-formed, complete, closed to the network, safe with hostile names, and its images the stored ones."""

import base64
import html.parser
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from certjax import configs, data, records, report
from certjax.certify import certificate

VOID = {'meta', 'img', 'br', 'hr', 'link', 'input'}
HOSTILE = """</title><script>alert(1)</script>" onload='x' & | <img src=//evil.example/x>"""


class Page(html.parser.HTMLParser):
  """Tags that must close, texts, attributes; `cells` are the texts of each table."""

  def __init__(self, text):
    super().__init__(convert_charrefs=True)
    self.open, self.tags, self.text, self.cells = [], [], '', []
    self.feed(text)
    self.close()
    assert not self.open, f'never closed: {self.open}'

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag == 'table':
      self.cells.append([])
    if tag in ('td', 'th'):
      self.cells[-1].append('')
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self.open and self.open.pop() == tag, f'</{tag}> closes something else'

  def handle_data(self, text):
    self.text += text
    if self.open and self.open[-1] in ('td', 'th'):
      self.cells[-1][-1] += text

  def of(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]


def run_of(name, radii, labels, predict, **header):
  size = len(radii)
  proved = certificate(np.array(predict), np.array(radii))
  index = 3 * np.arange(size)
  header = {
    'norm': 'l2',
    'unit': 'pixel value',
    'alpha': 0.001,
    'config': {'method': 'gaussian', **header},
  }
  return report.Run(name, index, np.array(labels), proved, None, header)


@pytest.fixture
def run():
  """Three right, one wrong, one abstention."""
  return run_of('plain', [0.5, 0.25, 0.7, 0.31, 0.0], [1, 2, 3, 4, 5], [1, 2, 3, 9, -1], sigma=0.25)


def written(path, *arguments, **options):
  report.write_html(path, *arguments, **options)
  return Page(path.read_text())


def safe(page):
  """Nothing runs, and nothing is asked of anybody."""
  assert not page.of('script') and not page.of('link') and not page.of('iframe')
  for tag, attributes in page.tags:
    assert not any(name.startswith('on') or name == 'srcset' for name in attributes), (
      tag,
      attributes,
    )
    for name in ('src', 'href', 'action', 'data', 'poster'):
      if value := attributes.get(name):
        assert value.startswith('data:image/png;base64,' if name == 'src' else '#')
  policy = [meta for meta in page.of('meta') if 'http-equiv' in meta][0]['content']
  assert policy.startswith("default-src 'none'") and 'http' not in policy


def test_every_number_of_the_table_and_of_the_comparison(tmp_path, run):
  other = run_of('other', [0.2, 0.9, 0.1, 0.0, 0.4], [1, 2, 3, 4, 5], [1, 2, 0, -1, 5])
  page = written(
    tmp_path / 'a' / 'r.html', [run, other], compare=[run, other], high_probability=True
  )
  safe(page)
  text = report.markdown(report.table([run, other]), high_probability=True)
  text += report.comparison_markdown(report.compare_runs(run, other), ('plain', 'other'))
  numbers = re.findall(r'[+-]?\d+(?:\.\d+)?(?:e-?\d+)?', text)
  assert len(numbers) > 60
  cells = ' '.join(cell for table in page.cells for cell in table)
  missing = [each for each in numbers if each not in cells and each not in page.text]
  assert not missing
  rows = [line for line in text.splitlines() if line.startswith('|') and not line.startswith('| -')]
  wanted = [cell.strip() for line in rows for cell in line.strip('| ').split('|')]
  found = [cell for table in page.cells[:2] for cell in table]
  assert [cell for cell in found if cell] == [cell for cell in wanted if cell]


def test_meaning_is_in_the_tags(tmp_path, run):
  page = written(tmp_path / 'r.html', [run], cards=[report.Card('card', [('Ball', 'closed')])])
  assert page.of('html')[0]['lang'] == 'en' and len(page.of('h1')) == len(page.of('main')) == 1
  assert {cell['scope'] for cell in page.of('th')} == {'col', 'row'}
  assert len(page.of('caption')) == len(page.of('table')) >= 3
  titles = {section['aria-labelledby'] for section in page.of('section')}
  assert titles == {heading['id'] for heading in page.of('h2')}
  assert {'#' + title for title in titles} == {link['href'] for link in page.of('a')}
  drawn = [svg for svg in page.of('svg') if svg.get('role') == 'img']
  assert len(drawn) == 1 and 'Certified accuracy' in drawn[0]['aria-label']
  style = (tmp_path / 'r.html').read_text().split('<style>')[1].split('</style>')[0]
  assert 'prefers-color-scheme: dark' in style and 'overflow-x: auto' in style
  assert any(meta.get('name') == 'viewport' for meta in page.of('meta'))


def test_outcomes_settings_and_cards(tmp_path, run):
  card = configs.contract_of(run.header)
  cards = [report.Card(card.title, configs.contract_rows(card))]
  problems = run._replace(problems=('shard 1 of 2 is missing',))
  page = written(tmp_path / 'r.html', [problems], cards=cards)
  table = next(cells for cells in page.cells if 'abstained' in cells)
  assert table == [
    'run',
    'certified and right',
    'certified with a wrong label',
    'abstained',
    'plain',
    '3',
    '1',
    '1',
  ]
  assert 'Indices: 9' in page.text and 'Indices: 12' in page.text
  assert 'plain: shard 1 of 2 is missing' in page.text
  for term, text in configs.contract_rows(card):
    assert term in page.text and text in page.text
  settings = next(cells for cells in page.cells if 'setting' in cells)
  assert settings[settings.index('config.sigma') + 1] == '0.25'


def test_hostile_names_are_texts(tmp_path, run):
  hostile = run._replace(name=HOSTILE, header={**run.header, HOSTILE: {'a': HOSTILE}})
  image = np.zeros((2, 2, 3), np.uint8)
  page = written(
    tmp_path / 'r.html', [hostile], cards=[report.Card(HOSTILE, [(HOSTILE, HOSTILE)])], notes=[HOSTILE],
    examples={HOSTILE: [report.Example('wrong', 0, 1, 2, 0.5, image)]},
  )  # fmt: skip
  safe(page)
  assert page.text.count('<script>alert(1)</script>') >= 8
  assert [cell for cell in page.cells[0] if 'evil' in cell] == [HOSTILE]


def test_the_curve_is_the_certified_accuracy(tmp_path):
  draw = np.random.default_rng(0)
  radii, labels = draw.integers(0, 40, 60) / 10, draw.integers(0, 2, 60)
  run = run_of('a', radii, labels, np.ones(60, int))
  page = written(tmp_path / 'r.html', [run])
  line = next(path['d'] for path in page.of('path') if path.get('fill') == 'none')
  corners = np.array([[float(v) for v in pair.split()] for pair in re.split('[ML]', line)[1:]])
  end = 1.04 * radii[labels == 1].max()
  x, accuracy = end * (corners[:, 0] - 56) / (800 - 56 - 12), 1 - (corners[:, 1] - 12) / (420 - 60)
  assert accuracy[-1] == pytest.approx(0)
  for r in np.linspace(0.013, 0.99 * radii[labels == 1].max(), 50):
    i = np.searchsorted(x, r)  # Between two corners of one height.
    assert accuracy[i] == pytest.approx(accuracy[i - 1])
    assert accuracy[i] == pytest.approx(
      report.certified_accuracy(run.certificate, run.labels, r), abs=2e-4
    )
  below = [text for text in page.of('text') if text.get('y') == str(420 - 48 + 18)]
  at = [end * (float(text['x']) - 56) / (800 - 56 - 12) for text in below]
  np.testing.assert_allclose(
    at, report.table([run]).radii, atol=1e-2
  )  # Its ticks are the table's radii.


@pytest.fixture
def digits_run(data_dir, tmp_path):
  """Records about real digits, every outcome among them."""
  index = np.array([0, 7, 20, 21, 300, 499])
  images = data.stream(data.source('digits', 'test', data_dir), index)
  labels = data.take(images, slice(None)).labels.tolist()
  header = {
    'kind': 'certify', 'norm': 'l2', 'unit': 'pixel value', 'alpha': 0.001, 'num_images': 6,
    'config': {'method': 'gaussian', 'sigma': 0.25, 'dataset': 'digits', 'split': 'test'},
    'images_sha256': data.fingerprint(images),
  }  # fmt: skip
  outcomes = [(0, 0.4), (0, 0.1), (1, 0.2), (None, 0.0), (0, 0.7), (0, 0.123456)]
  records.start(tmp_path / 'run', header)
  for i, label, (shift, radius) in zip(index.tolist(), labels, outcomes, strict=True):
    predict = -1 if shift is None else (label + shift) % 10
    records.append(
      tmp_path / 'run', {'index': i, 'label': label, 'predict': predict, 'radius': radius}
    )
  return tmp_path / 'run', data.take(images, slice(None))


def test_examples_are_the_stored_images(command, digits_run, data_dir, tmp_path):
  path, images = digits_run
  done = command('report', path, '--html', tmp_path / 'r.html', '--data-dir', data_dir)
  assert done.code == 0, done.err
  assert f'written to {tmp_path / "r.html"}' in done.out
  page = Page((tmp_path / 'r.html').read_text())
  safe(page)
  # The right ones by radius, then the wrong one, then the abstention.
  order = [7, 499, 0, 300, 20, 21]
  shown = page.of('img')
  assert [image['alt'].split(',')[0] for image in shown] == [f'image {i}' for i in order]
  for attributes, i in zip(shown, order, strict=True):
    with Image.open(io.BytesIO(base64.b64decode(attributes['src'].split(',')[1]))) as image:
      stored = images.images[images.index.tolist().index(i)]
      np.testing.assert_array_equal(np.asarray(image), stored[..., 0])
  labels = dict(zip(images.index.tolist(), images.labels.tolist(), strict=True))
  assert f'499: class {labels[499]}, certified, radius 0.1234' in page.text
  assert f'20: class {labels[20]}, certified as {(labels[20] + 1) % 10}, radius 0.2000' in page.text
  assert f'21: class {labels[21]}, abstained' in page.text
  assert 'run: Gaussian randomized smoothing (gaussian)' in page.text


def test_images_that_are_not_those_of_the_run_are_left_out(command, digits_run, data_dir, tmp_path):
  path, _ = digits_run
  file = path / 'records.jsonl'
  text = file.read_text()
  sha = json.loads(text.splitlines()[0])['images_sha256']
  for name, old, new, said in (
    ('pixels', sha, '0' * 64, 'are not those of the records'),
    ('nowhere', '"digits"', '"mnist"', 'mnist'),
  ):
    file.write_text(text.replace(old, new))
    done = command('report', path, '--html', tmp_path / f'{name}.html', '--data-dir', data_dir)
    assert done.code == 0, done.err
    page = Page((tmp_path / f'{name}.html').read_text())
    assert not page.of('img')
    assert re.search(f'run: its images are not shown.*{said}', page.text)


def test_a_page_needs_neither_jax_nor_a_data_set(digits_run, tmp_path):
  path, _ = digits_run
  script = (
    'import sys\n'
    'class Refuse:\n'
    '  def find_spec(self, name, *rest):\n'
    "    if name.split('.')[0] in ('jax', 'jaxlib', 'flax'): raise ImportError('no jax here')\n"
    'sys.meta_path.insert(0, Refuse())\n'
    'from certjax import cli\n'
    'raise SystemExit(cli.main(sys.argv[1:]))\n'
  )
  arguments = ['report', path, '--html', tmp_path / 'r.html', '--data-dir', tmp_path / 'none']
  subprocess.run(
    [sys.executable, '-c', script, *map(str, arguments)], check=True, capture_output=True
  )
  assert 'Gaussian randomized smoothing' in Page((tmp_path / 'r.html').read_text()).text


def attacked(directory, norm, broken):
  """A finished directory of `certjax attack`: image 4 is wrong as it is."""
  header = {'weights_sha256': 'w', 'images_sha256': 'i', 'config': {'dataset': 'digits'}}
  records.start(directory / 'clean', header)
  records.start(directory / 'pgd', header)
  for i in range(5):
    records.append(
      directory / 'clean', {'index': i, 'label': 1, 'predict': 1 + (i == 4), 'radius': 0.0}
    )
    records.append(
      directory / 'pgd',
      {'index': i, 'label': 1, 'predict': 1, 'radius': 0.0, 'success': i in broken},
    )
  summary = {
    'norm': norm, 'eps': 0.1, 'unit': 'pixel value', 'attacks': [{'name': 'pgd'}],
    'worst_case': {'correct': 4 - len(broken)},
  }  # fmt: skip
  (directory / 'attacks.json').write_text(json.dumps(summary))
  return directory


def test_threats(command, tmp_path):
  runs = [attacked(tmp_path / 'a', 'linf', {1, 2}), attacked(tmp_path / 'b', 'l2', {2})]
  done = command(
    'report',
    '--threats',
    *runs,
    '--trained',
    'linf',
    '--html',
    tmp_path / 'r.html',
    '--out',
    tmp_path / 'out',
  )
  assert done.code == 0, done.err
  page = Page((tmp_path / 'r.html').read_text())
  safe(page)
  text = (tmp_path / 'out' / 'threats.md').read_text()
  for number in re.findall(r'\d+(?:\.\d+)?', text):
    assert number in page.text
  assert 'linf 0.1 (pixel value): 2 of 5 images' in page.text and 'Indices: 1, 2' in page.text
  assert 'Nothing here is a certificate' in page.text
  assert '2 threats on one model' in page.text
  for caption in ('Accuracy under attack', 'Images by what broke them'):
    assert f'<caption>{caption}</caption>' in (tmp_path / 'r.html').read_text()


@pytest.mark.parametrize(
  'arguments, said',
  [
    (('runs', '--html', 'page.pdf'), '`html` is a page: name it FILE.html'),
    (
      ('runs', '--grid', 'g.png', '--html', 'page.html'),
      '`html` of attacks is that of `--threats`',
    ),
  ],
)
def test_bad_requests(command, arguments, said):
  done = command('report', *arguments)
  assert done.code == 2 and done.err.startswith('certjax: error: ') and said in done.err
