"""The endpoint of a study on this machine: the page and its images, and a place for answers.

It listens on 127.0.0.1 alone, never shows the key, and writes one file a worker and batch, never a second time.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import threading
import urllib.parse

from certjax.study._answers import WORKER, parse_answers
from certjax.study._build import ANSWERS, PAGE, read_key

_LARGEST = 1 << 20  # Bytes of a POST.
_SECONDS = 10.0  # That a client may be silent.
_IMAGE = re.compile(r'/pairs/\d+-\d+-[12]\.png')
_TYPES = {'.html': 'text/html; charset=utf-8', '.png': 'image/png'}


def make_server(directory, *, port=0):
  """A server of a study; `serve_forever()` runs it, `shutdown()` and `server_close()` end it.

  GET / and /pairs/NAME.png give the page, GET /progress?worker=NAME which batches are done. POST /answers stores
  what the page sends: 200 if it was stored, 400 if it is malformed, 403 beyond the worker's last batch, 409 if
  there are answers already, 413 above 1 MiB.

  Args:
    directory: that `build` wrote.
    port: to listen on; 0 finds a free one.

  Returns:
    An `http.server.ThreadingHTTPServer`; `server_port` is its port.

  Raises:
    ValueError: if there is no study, or the port is none.
    OSError: if the port is taken.

  Example:
    >>> make_server('nowhere', port=80_000)
    Traceback (most recent call last):
    ...
    ValueError: `port` must lie in 0 .. 65535, got 80000; 0 finds a free one.
  """
  if not 0 <= port < 2**16:
    raise ValueError(f'`port` must lie in 0 .. {2**16 - 1}, got {port}; 0 finds a free one.')
  directory = pathlib.Path(directory)
  store = _Store(directory / ANSWERS, read_key(directory))
  handler = type('Handler', (_Handler,), {'page': directory / PAGE, 'store': store})
  return http.server.ThreadingHTTPServer(('127.0.0.1', port), handler)


class _Refused(Exception):
  """A status and a line for the client."""


class _Store:
  """Answers on the disk; requests come in several threads."""

  def __init__(self, directory, key):
    self._directory, self._key, self._lock = directory, key, threading.Lock()
    directory.mkdir(exist_ok=True)

  def finished(self, worker):
    """Numbers of the batches of a worker."""
    found = (
      re.fullmatch(rf'{worker}\.batch-(\d+)\.json', name) for name in os.listdir(self._directory)
    )
    return sorted(int(match[1]) for match in found if match)

  def add(self, text):
    """Writes answers; `_Refused` if they cannot be taken."""
    try:
      answers = parse_answers(text, self._key)
    except ValueError as error:
      raise _Refused(400, str(error)) from error
    worker, batch = answers['worker'], answers['batch']
    most = self._key['settings']['max_batches']
    with self._lock:
      done = self.finished(worker)
      if batch in done:
        raise _Refused(409, f'batch {batch} of {worker} is there already')
      if len(done) >= most:
        raise _Refused(403, f'{worker} has done {most} batches, the most there are for one worker')
      self._write(self._directory / f'{worker}.batch-{batch:03}.json', answers)

  def _write(self, path, answers):
    """Whole or not at all, and never over another file."""
    part = path.with_suffix('.part')
    part.write_text(json.dumps(answers) + '\n', encoding='utf-8')
    try:
      os.link(part, path)  # Unlike a rename, a link fails where the name is taken.
    except FileExistsError as error:  # Names that differ in case alone, on some disks.
      raise _Refused(409, f'{path.name} is there already') from error
    finally:
      part.unlink()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers a request; `page` and `store` are set by `make_server`."""

  page: pathlib.Path
  store: '_Store'
  server: http.server.HTTPServer
  timeout = _SECONDS
  server_version = 'certjax'
  sys_version = ''

  def do_GET(self):
    """A file of the page, or a worker's progress."""
    self._guarded(self._get)

  def do_POST(self):
    """Answers."""
    self._guarded(self._post)

  def log_message(self, format, *args):
    """Nothing: answers are on the disk."""

  def _get(self):
    address = urllib.parse.urlsplit(self.path)
    if address.path == '/progress':
      worker = urllib.parse.parse_qs(address.query).get('worker', [''])[0]
      if not WORKER.fullmatch(worker):
        raise _Refused(400, 'worker must be 1 to 64 letters, digits, - or _')
      text = json.dumps({'batches': self.store.finished(worker)})
      return self._reply(200, 'application/json', text.encode())
    path = '/index.html' if address.path == '/' else address.path
    if path != '/index.html' and not _IMAGE.fullmatch(path):
      raise _Refused(404, 'no such page')
    try:
      content = (self.page / path[1:]).read_bytes()
    except OSError as error:
      raise _Refused(404, 'no such page') from error
    return self._reply(200, _TYPES[pathlib.PurePath(path).suffix], content)

  def _post(self):
    if urllib.parse.urlsplit(self.path).path != '/answers':
      raise _Refused(404, 'no such page')
    length = self.headers.get('Content-Length', '')
    if not re.fullmatch(r'[0-9]{1,12}', length):
      raise _Refused(411, 'Content-Length must be a number')
    if int(length) > _LARGEST:
      raise _Refused(413, f'more than {_LARGEST} bytes')
    self.store.add(self.rfile.read(int(length)))
    self._reply(200, 'text/plain; charset=utf-8', b'stored\n')

  def _guarded(self, act):
    try:
      self._check_ours()
      act()
    except _Refused as refused:
      status, text = refused.args
      self.close_connection = True  # A body that was not read must not be taken for a request.
      self._reply(status, 'text/plain; charset=utf-8', f'{text}\n'.encode())
    except OSError:  # A full disk, or a client that went away.
      self.close_connection = True
      with contextlib.suppress(OSError):
        self._reply(500, 'text/plain; charset=utf-8', b'the answers could not be stored\n')

  def _check_ours(self):
    """Pages of other sites, which a browser may send here, have other names."""
    port = self.server.server_port
    ours = {f'{host}:{port}' for host in ('127.0.0.1', 'localhost')}
    origin = self.headers.get('Origin')
    if self.headers.get('Host') not in ours or (
      origin is not None and origin.removeprefix('http://') not in ours
    ):
      raise _Refused(403, 'this server answers its own page alone')

  def _reply(self, status, kind, content):
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('X-Content-Type-Options', 'nosniff')
    self.send_header('Cache-Control', 'no-store')
    self.end_headers()
    self.wfile.write(content)
