"""The engine: work items of many images fill one fixed-shape batch on the device.

An item is (image, purpose, number): one noisy copy, or one view. What an image needs is its `plan`,
a generator that asks for items and is sent their counts; so a plan may draw once (CERTIFY), or look
again and again and stop early (`sequential`). The host keeps the batch full with the items of
whatever images are on the device, and puts the next image where a decided one was. Outcomes are
scattered into int32 counts; the next wave is dispatched before the last is read.

The noise of an item is a function of root key, purpose, data set index and number alone, the model
runs at one batch shape, and a plan sees counts of whole requests only: no result depends on the
schedule, the order, the slots or the number of devices.
"""

import bisect
import collections
import dataclasses
import time
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import numpy as np

from certjax import parallel
from certjax.certify._device import Device
from certjax.certify._program import Outside, Program

SLOTS = 64
"""Images on the device at once, unless told otherwise."""

_SECONDS_PER_WAVE = 0.25  # Two are under way: so long Ctrl-C may have to wait, twice.
_MAX_STEP = 2**24
_MAX_WAVE = 2**30  # Items of a wave are numbered in int32, with room for the padding.
_UNDER_WAY = 2
_AHEAD = 4  # Images begun while an earlier one is undecided, in multiples of the slots.


class Work(NamedTuple):
  """One image.

  Attributes:
    image: float32[...].
    index: its data set index.
    plan: a generator that yields lists of (purpose, number of items), is sent the list of their
      counts int64[*bins], and returns the result. Items of a purpose are numbered on from the last.
    extra: an integer that `tally` sees.
  """

  image: np.ndarray
  index: int
  plan: Generator[Any, Any, Any]
  extra: int = 0


def once(*requests):
  """The plan that asks one time: (purpose, number) each; its result is the list of counts.

  Args:
    *requests: (purpose, number of items) each.

  Yields:
    The list of requests, one time.

  Example:
    >>> next(once((0, 100), (1, 10_000)))
    [(0, 100), (1, 10000)]
  """
  return (yield list(requests))


def run(
  program: Program, work: Iterable[Work], *, chunk, mesh=None, slots=SLOTS, stop=lambda: False
):
  """Carries out the plans of images, in whatever order fills the device best.

  Args:
    program: a `Program`.
    work: `Work` an image, all of one shape; read as slots come free, so it may be a stream.
    chunk: rows of the model's batch on each device.
    mesh: default all devices of this process.
    slots: images on the device at once; part of the compiled program.
    stop: asked after every wave; once it says True, what is under way is still read, the images
      that this decides are yielded, and the rest is left.

  Yields:
    (result of the plan, seconds of device time that the image took), in the order of `work`.

  Raises:
    ValueError: on a `chunk` out of range.

  Example:
    >>> import jax
    >>> from certjax import smoothing
    >>> from certjax.certify import SELECTION, smoothing_program
    >>> flat, law = lambda x: 1e3 * x.reshape(len(x), -1), smoothing.gaussian(sigma=0.1)
    >>> program = smoothing_program(jax.random.key(0), flat, law, (1, 2, 1), 100)
    >>> work = [Work(np.array([0.2, 0.8], np.float32).reshape(1, 2, 1), 0, once((SELECTION, 100)))]
    >>> (((counts,), seconds),) = run(program, work, chunk=100, slots=1)
    >>> counts
    array([  0, 100])
  """
  mesh = parallel.local_mesh() if mesh is None else mesh
  if isinstance(program.model_fn, Outside):
    mesh = parallel.data_mesh(mesh.devices.ravel()[:1])
  step = chunk * mesh.devices.size
  if chunk < 1 or slots < 1:
    raise ValueError(f'`chunk` and `slots` must be at least 1, got {chunk} and {slots}.')
  if step > _MAX_STEP:
    raise ValueError(
      f'`chunk` times the number of devices must be at most {_MAX_STEP}, got {step}.'
    )
  queue = _Queue(work, slots)
  device = None
  wave, last_read = step, 0.0
  under_way = collections.deque()
  while True:
    for image in queue.admit() if not stop() else ():
      device = device or Device(program, image.work, chunk, mesh, slots)
      device.load(image.slot, image.work)
    segments = [] if stop() else queue.cut(wave, step, ragged=not under_way)
    if segments and device is not None:
      under_way.append((time.perf_counter(), segments, device.count(segments)))
    if not under_way:
      break
    if not segments or len(under_way) == _UNDER_WAY:
      begun, segments, counts = under_way.popleft()
      counts = np.asarray(counts).astype(np.int64)
      now = time.perf_counter()
      seconds, last_read = now - max(begun, last_read), now
      num_items = sum(segment.size for segment in segments)
      queue.receive(segments, counts, seconds / num_items)
      wave = min(_next_wave(-(-num_items // step), seconds) * step, _MAX_WAVE // step * step)
    yield from queue.finished()


def _next_wave(chunks, seconds):
  """Chunks of the next wave, so that it lasts about `_SECONDS_PER_WAVE`."""
  wanted = int(chunks * _SECONDS_PER_WAVE / max(seconds, 1e-6))
  return min(max(wanted, 1), 8 * chunks)  # The first wave includes compilation.


@dataclasses.dataclass
class _Image:
  """An image on the device: its plan, how many items of each purpose it had, and its requests."""

  position: int
  slot: int
  work: Work
  drawn: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(int))
  requests: list = dataclasses.field(default_factory=list)
  seconds: float = 0.0


@dataclasses.dataclass
class _Request:
  image: _Image
  purpose: int
  first: int  # The next item to dispatch.
  left: int  # Items not dispatched yet.
  unread: int  # Items whose counts are not here yet.
  counts: Any = 0


class _Segment(NamedTuple):
  """Items first .. first + size - 1 of a request, as part of a wave."""

  request: _Request
  first: int
  size: int


class _Queue:
  """The images under way and what they ask for, earliest image first."""

  def __init__(self, work, slots):
    self._work, self._slots = enumerate(work), slots
    self._free = list(range(slots))[::-1]
    self._requests = []  # With items left, by position.
    self._results, self._next = {}, 0

  def admit(self):
    """Yields images newly given a slot."""
    while self._free and self._work is not None:
      if len(self._results) >= _AHEAD * self._slots:
        return  # Too many wait for an earlier one: a killed run would lose them.
      entry = next(self._work, None)
      if entry is None:
        self._work = None
        return
      position, work = entry
      image = _Image(position, self._free.pop(), work)
      self._advance(image, None)
      yield image

  def cut(self, wave, step, *, ragged):
    """Takes at most `wave` items, whole steps of them unless `ragged`: a list of segments."""
    available = sum(request.left for request in self._requests[: 2 * self._slots])
    wave = min(wave, available)
    if wave >= step:
      wave -= wave % step
    elif not ragged:
      return []
    segments = []
    for request in self._requests[: 2 * self._slots]:
      if wave == 0:
        break
      size = min(request.left, wave)
      segments.append(_Segment(request, request.first, size))
      request.first, request.left, wave = request.first + size, request.left - size, wave - size
    self._requests = [request for request in self._requests if request.left]
    return segments

  def receive(self, segments, counts, seconds_per_item):
    """Adds what came back to the requests; goes on with the images that have all they asked."""
    for segment, count in zip(segments, counts, strict=False):
      request, image = segment.request, segment.request.image
      request.counts = request.counts + count
      request.unread -= segment.size
      image.seconds += seconds_per_item * segment.size
      if not any(request.unread for request in image.requests):
        self._advance(image, [request.counts for request in image.requests])

  def finished(self):
    """Yields (result, seconds) of images, in order, as far as they are decided."""
    while self._next in self._results:
      yield self._results.pop(self._next)
      self._next += 1

  def _advance(self, image, counts):
    try:
      asked = image.work.plan.send(counts)
    except StopIteration as done:
      self._results[image.position] = (done.value, image.seconds)
      self._free.append(image.slot)
      return
    image.requests = []
    for purpose, number in asked:
      request = _Request(image, purpose, image.drawn[purpose], number, number)
      image.drawn[purpose] += number
      image.requests.append(request)
      bisect.insort(self._requests, request, key=lambda request: request.image.position)
