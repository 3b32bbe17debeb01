"""The endpoint: the page and nothing else, and each answer once."""

import http.client
import json
import threading

import pytest

from certjax import study


@pytest.fixture
def server(built):
  with study.make_server(built) as server:
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.fixture
def ask(server):
  """`ask('GET', path) -> (status, content)`."""

  def request(method, path, body=None, headers=()):
    connection = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=5)
    connection.request(method, path, body, dict(headers))
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content

  return request


def test_the_page_and_its_images(ask, built, server):
  assert server.server_address[0] == '127.0.0.1'
  page = (built / 'page' / 'index.html').read_bytes()
  assert ask('GET', '/') == ask('GET', '/index.html?worker=a') == (200, page)
  image = (built / 'page' / 'pairs' / '001-03-2.png').read_bytes()
  assert ask('GET', '/pairs/001-03-2.png') == (200, image)


@pytest.mark.parametrize(
  'path',
  [
    '/key.json', '/../key.json', '/pairs/../../key.json', '/pairs/%2e%2e/%2e%2e/key.json', '/answers', '/pairs/',
    '/answers/w.batch-001.json', '//key.json', '/pairs/001-99-1.png', '/pairs/../../../etc/passwd',
  ],
)  # fmt: skip
def test_nothing_else(ask, path):
  status, content = ask('GET', path)
  assert status == 404 and b'truth' not in content


def test_answers_are_stored_once(ask, built, answer):
  key = study.read_key(built)
  assert ask('GET', '/progress?worker=w1') == (200, b'{"batches": []}')
  assert ask('POST', '/answers', json.dumps(answer(key, 'w1', 2)))[0] == 200
  assert ask('GET', '/progress?worker=w1') == (200, b'{"batches": [2]}')
  assert ask('GET', '/progress?worker=w') == (200, b'{"batches": []}')
  other = answer(key, 'w1', 2, lambda truth: True)
  assert ask('POST', '/answers', json.dumps(other))[0] == 409
  assert study.read_answers([built / 'answers'], key) == [answer(key, 'w1', 2)]
  assert [path.name for path in (built / 'answers').iterdir()] == ['w1.batch-002.json']


def test_one_of_many_at_once_wins(ask, built, answer):
  key = study.read_key(built)
  statuses = []
  send = lambda: statuses.append(ask('POST', '/answers', json.dumps(answer(key, 'w1', 1)))[0])
  threads = [threading.Thread(target=send) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(statuses) == [200] + [409] * 7


def test_the_last_batch_of_a_worker(make_condition, answer, tmp_path):
  batches = study.compose([make_condition()], batch_size=6, num_identical=1, num_sentinels=3)
  assert len(batches) == 3
  study.build(tmp_path, batches, title='T', instructions='I', price=0, max_batches=2)
  key = study.read_key(tmp_path)
  with study.make_server(tmp_path) as server:
    store = server.RequestHandlerClass.store
    store.add(json.dumps(answer(key, 'w1', 3)))
    store.add(json.dumps(answer(key, 'w1', 1)))
    store.add(json.dumps(answer(key, 'w2', 2)))
    with pytest.raises(Exception, match='403.*w1 has done 2 batches'):
      store.add(json.dumps(answer(key, 'w1', 2)))
    with pytest.raises(Exception, match='409.*is there already'):
      store.add(json.dumps(answer(key, 'w1', 3)))
  assert len(list((tmp_path / 'answers').iterdir())) == 3


def test_a_file_in_the_way_is_kept(built, answer):
  """Two names are one file where a disk ignores case: what came first stays."""
  with study.make_server(built) as server:
    path = built / 'answers' / 'W1.batch-001.json'
    path.write_text('first')
    with pytest.raises(Exception, match='409'):
      server.RequestHandlerClass.store._write(path, answer(study.read_key(built), 'w1', 1))
  assert path.read_text() == 'first' and len(list((built / 'answers').iterdir())) == 1


def test_bad_posts(ask, built, answer):
  key = study.read_key(built)
  good = json.dumps(answer(key, 'w1', 1))
  assert ask('POST', '/answers', '{')[0] == 400
  assert ask('POST', '/answers', good[:-1])[0] == 400
  assert ask('POST', '/elsewhere', good)[0] == 404
  assert ask('POST', '/answers', good, {'Content-Length': '-1'})[0] == 411
  assert ask('POST', '/answers', b'', {'Content-Length': str(1 << 21)})[0] == 413
  assert ask('PUT', '/answers', good)[0] == 501
  assert ask('GET', '/progress?worker=../x')[0] == 400
  assert list((built / 'answers').iterdir()) == []


def test_other_sites_are_refused(ask, built, answer):
  good = json.dumps(answer(study.read_key(built), 'w1', 1))
  for headers in ({'Host': 'example.org'}, {'Origin': 'http://example.org'}, {'Origin': 'null'}):
    assert ask('POST', '/answers', good, headers)[0] == 403
  assert list((built / 'answers').iterdir()) == []


def test_what_cannot_be_served(tmp_path, built):
  with pytest.raises(ValueError, match='holds no study'):
    study.make_server(tmp_path)
  with pytest.raises(ValueError, match='`port`'):
    study.make_server(built, port=70000)
