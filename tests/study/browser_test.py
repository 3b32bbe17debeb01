"""The page in a headless Chromium, driven by its WebDriver, against the endpoint on loopback."""

import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import pytest

from certjax import study

DRIVER = shutil.which('chromedriver')
BROWSER = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
pytestmark = pytest.mark.skipif(
  not (DRIVER and BROWSER), reason='needs Chromium and chromedriver on the PATH'
)
FLAGS = (
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
  '--disable-background-networking', '--disable-component-update', '--window-size=900,900', '--no-proxy-server',
)  # fmt: skip
_PATIENCE = 20.0  # Seconds for anything that the page should do at once.


class Browser:
  """The few commands of WebDriver that are needed."""

  def __init__(self, port, profile):
    self._port, self._prefix = port, ''
    wait_for(self._is_up)
    options = {'binary': BROWSER, 'args': [*FLAGS, f'--user-data-dir={profile}']}
    asked = {'capabilities': {'alwaysMatch': {'goog:chromeOptions': options}}}
    self._prefix = f'/session/{self._ask("POST", "/session", asked)["sessionId"]}'

  def _is_up(self):
    try:
      return self._ask('GET', '/status')['ready']
    except OSError:
      return False

  def _ask(self, method, path, content=None):
    connection = http.client.HTTPConnection('127.0.0.1', self._port, timeout=60)
    body = None if content is None else json.dumps(content)
    connection.request(method, self._prefix + path, body, {'Content-Type': 'application/json'})
    value = json.loads(connection.getresponse().read())['value']
    connection.close()
    assert not (isinstance(value, dict) and 'error' in value), value
    return value

  def open(self, address):
    self._ask('POST', '/url', {'url': address})

  def run(self, script):
    """The value of a script in the page."""
    return self._ask('POST', '/execute/sync', {'script': script, 'args': []})

  def press(self, key):
    actions = [{'type': kind, 'value': key} for kind in ('keyDown', 'keyUp')]
    keyboard = {'type': 'key', 'id': 'keyboard', 'actions': actions}
    self._ask('POST', '/actions', {'actions': [keyboard]})

  def click(self, name):
    found = self._ask('POST', '/element', {'using': 'css selector', 'value': f'#{name}'})
    self._ask('POST', f'/element/{next(iter(found.values()))}/click', {})

  def text(self, name):
    return self.run(f'return document.getElementById("{name}").textContent')

  def can_answer(self):
    return self.run('return !document.getElementById("same").disabled')

  def close(self):
    self._ask('DELETE', '')


def wait_for(condition):
  end = time.monotonic() + _PATIENCE
  while not (value := condition()):
    assert time.monotonic() < end, 'waited in vain'
    time.sleep(0.02)
  return value


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  driver = subprocess.Popen(
    [DRIVER, f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  try:
    browser = Browser(port, tmp_path_factory.mktemp('profile'))
    yield browser
    browser.close()
  finally:
    driver.terminate()
    driver.wait(timeout=10)


@pytest.fixture
def small(make_condition, tmp_path):
  """Three batches of five pairs, of which a worker may do two."""
  batches = study.compose([make_condition()], batch_size=5, num_identical=1, num_sentinels=2)
  study.build(
    tmp_path, batches, title='Same?', instructions='<b>Look</b>', price=0.01, seconds=0.2, gap=0.05,
    max_batches=2,
  )  # fmt: skip
  return tmp_path


@pytest.fixture
def site(small):
  with study.make_server(small) as server:
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    thread.join()


def shown(browser):
  return browser.run('return document.querySelector("#stage img")?.src.split("/").pop()')


def judge(browser, key, by_key):
  """Answers one pair by the truth, after trying to answer it too early."""
  name = wait_for(lambda: shown(browser))[:-6]
  browser.press('s')
  browser.press('d')
  assert not browser.can_answer()
  wait_for(browser.can_answer)
  assert browser.run('return document.querySelector("#stage img")') is None
  answer = 'same' if key['pairs'][name]['truth_same'] else 'different'
  browser.press(answer[0]) if by_key else browser.click(answer)
  return name


def test_a_worker_does_all_that_is_allowed(browser, site, small):
  key = study.read_key(small)
  browser.open(f'{site}/?worker=w1')
  assert browser.text('title') == 'Same?' and browser.text('instructions') == '<b>Look</b>'
  assert '5 pairs and pays $0.05; at most 2 batches' in browser.text('facts')
  browser.click('start')
  orders = []
  for number in range(2):
    orders.append([judge(browser, key, by_key=number == 0) for _ in range(5)])
    wait_for(lambda: browser.text('sent') == 'Your answers were received.')
    saved = browser.run('return document.getElementById("save").href')
    sent = json.loads(
      browser.run(f'return decodeURIComponent({json.dumps(saved)}.split(/,(.*)/s)[1])')
    )
    assert sent in study.read_answers([small / 'answers'], key)
    assert browser.run('return document.getElementById("next").hidden') == (number == 1)
    if number == 0:
      browser.click('next')
      wait_for(lambda: not browser.run('return document.getElementById("trial").hidden'))
  found = study.read_answers([small / 'answers'], key)
  assert len(found) == 2 and {each['worker'] for each in found} == {'w1'}
  assert sorted(map(sorted, orders)) == sorted(
    sorted(key['settings']['batches'][each['batch'] - 1]) for each in found
  )
  for each in found:
    assert [answer['pair'] for answer in each['answers']] in orders
    for answer in each['answers']:
      assert (answer['answer'] == 'same') == key['pairs'][answer['pair']]['truth_same']
      assert 0 <= answer['milliseconds'] < 1000 * _PATIENCE
  browser.open(f'{site}/?worker=w1')
  browser.click('start')
  wait_for(lambda: 'nothing left' in browser.text('thanks'))
  asked = browser.run('return performance.getEntriesByType("resource").map((entry) => entry.name)')
  assert asked and all(address.startswith(f'{site}/') for address in asked)


def test_the_order_is_of_the_worker(browser, site):
  browser.open(site)
  order = lambda text: browser.run(f'return shuffled([...Array(12).keys()], {text!r})')
  found = [order(f'w{number}/1') for number in range(8)]
  assert order('w3/1') == found[3]
  assert all(sorted(each) == list(range(12)) for each in found)
  assert len({tuple(each) for each in found}) == 8
  count = 'const n = [0, 0, 0, 0]; for (let i = 0; i < 4000; i++) n[shuffled([0, 1, 2, 3], "w" + i)[0]]++; return n'
  # Of 4000 fair draws each comes 1000 times, +- 27.4: beyond 5 sigma once in a million.
  assert all(abs(times - 1000) < 140 for times in browser.run(count))


def test_a_worker_without_a_name_is_asked(browser, site):
  browser.open(site)
  browser.click('start')
  assert '1 to 64 letters' in browser.text('error')
  assert browser.run('return document.getElementById("trial").hidden')


def test_mechanical_turk(browser, site):
  """A preview cannot start; answers go to Amazon's two hosts and to no other."""
  browser.open(f'{site}/?assignmentId=ASSIGNMENT_ID_NOT_AVAILABLE&batch=1')
  assert browser.run('return document.getElementById("start").disabled')
  assert 'preview' in browser.text('error')
  for host, expected in (
    ('https://workersandbox.mturk.com', 'https://workersandbox.mturk.com/mturk/externalSubmit'),
    ('https://example.org', None),
  ):
    browser.open(f'{site}/?assignmentId=A1&workerId=W1&batch=2&turkSubmitTo={host}')
    assert browser.run('return choose()') == 2
    script = (
      'if (turk === null) return null; HTMLFormElement.prototype.submit = () => {}; submit("{}");'
      'const form = document.querySelector("form[method=post]");'
      'return [form.action, ...[...form.elements].map((field) => field.name + "=" + field.value)]'
    )
    found = browser.run(script)
    assert found == (None if expected is None else [expected, 'assignmentId=A1', 'answers={}'])


def test_from_a_file_answers_are_saved(browser, small):
  """No server: everything but the sending works."""
  key = study.read_key(small)
  browser.open((small / 'page' / 'index.html').as_uri() + '?worker=w2&batch=3')
  browser.click('start')
  for _ in range(5):
    judge(browser, key, by_key=True)
  wait_for(lambda: 'not sent' in browser.text('sent'))
  name, address = browser.run(
    'const a = document.getElementById("save"); return [a.download, a.href]'
  )
  assert name == 'w2.batch-003.json' and address.startswith('data:application/json,')


def test_a_missing_image_says_so(browser, site, small):
  for path in pathlib.Path(small / 'page' / 'pairs').iterdir():
    path.unlink()
  browser.open(f'{site}/?worker=w3')
  browser.click('start')
  wait_for(lambda: 'could not be loaded' in browser.text('error'))
  assert not browser.can_answer()
