"""How many requests at once: more while that helps, fewer when the server says so."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django_dualstorage.engine.throttle import Throttle
from django_dualstorage.exceptions import S3Error, S3TransientError

#: What a request without bytes counts as, in bytes, so that many small files and few large ones compare.
_REQUEST = 64 * 1024
_WINDOW = 0.5
_FIRST_WINDOWS = 0.15
_WORTH_DOUBLING = 1.25
#: What a file that goes up in parts has in memory at most, in bytes.
_IN_PARTS = 32 * 1024 * 1024
#: Bytes on their way at a time.
_ROOM = 64 * 1024 * 1024
_BETTER = 1.05
_WORSE = 0.9
_GROWTH = 1.25
_BACK_OFF = 0.5
#: Seconds: refusals of requests that were in flight together are one; after it, growth waits.
_ONE_EVENT = 1.0
_CAUTION = 5.0
#: Windows without a change, after which it is tried whether more helps now.
_TRY_AGAIN = 10


class Controller:
    """A limit between ``minimum`` and ``maximum`` that follows the throughput. No clock and no lock of its own.

    It begins low and doubles for as long as that pays, since most of a short run is its beginning. Then it grows by a
    quarter for as long as the throughput grows along, takes the last step back when it did not, and halves when the
    server refuses or is silent.
    """

    def __init__(self, maximum: int, *, minimum: int = 1, start: int = 2) -> None:
        self._minimum = float(max(1, minimum))
        self._maximum = float(max(self._minimum, maximum))
        self._limit = min(self._maximum, max(self._minimum, float(start)))
        self._starting = True
        self._before: float | None = None
        self._rate = 0.0
        self._opened: float | None = None
        self._work = 0
        self._requests = 0
        self._calm_windows = 0
        self._refused_at: float | None = None

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        return int(self._limit)

    def finished(self, size: int, now: float) -> None:
        """A request of ``size`` bytes was answered, at ``now`` (seconds of a monotonic clock)."""
        if self._opened is None:
            self._opened = now
            return
        self._work += size + _REQUEST
        self._requests += 1
        elapsed = now - self._opened
        if elapsed < (_FIRST_WINDOWS if self._starting else _WINDOW) or self._requests < 2 * self.limit:
            return
        if self._starting:
            self._start(self._work / elapsed)
        else:
            self._judge(self._work / elapsed, now)
        self._opened, self._work, self._requests = now, 0, 0

    def refused(self, now: float) -> None:
        """The server said SlowDown, or nothing in time."""
        if self._refused_at is not None and now - self._refused_at < _ONE_EVENT:
            return
        self._refused_at = now
        self._starting = False
        self._limit = max(self._minimum, self._limit * _BACK_OFF)
        self._before = None
        self._rate = 0.0
        self._opened, self._work, self._requests = now, 0, 0

    def _start(self, rate: float) -> None:
        if self._before is not None and rate < self._rate * _WORTH_DOUBLING:
            self._limit, self._before = self._before, None
            self._starting = False
            return
        self._rate = rate
        self._before = self._limit
        self._limit = min(self._maximum, self._limit * 2)
        if self._limit == self._before:
            self._before = None
            self._starting = False

    def _judge(self, rate: float, now: float) -> None:
        cautious = self._refused_at is not None and now - self._refused_at < _CAUTION
        if self._before is not None and rate < self._rate * _BETTER:
            # The last step has not helped; if it has hurt, or just costs, it is taken back.
            self._limit, self._before = self._before, None
            self._calm_windows = 0
        elif not cautious and (self._before is not None or rate >= self._rate * _BETTER or self._try_again()):
            self._before = self._limit
            self._limit = min(self._maximum, max(self._limit + 1, self._limit * _GROWTH))
            if self._limit == self._before:
                self._before = None
        else:
            self._calm_windows += 1
        # What the server gives changes with the time of day.
        self._rate = rate if rate > self._rate else max(rate, self._rate * _WORSE)

    def _try_again(self) -> bool:
        if self._calm_windows < _TRY_AGAIN:
            return False
        self._calm_windows = 0
        return True


class Pace:
    """What all requests of a command keep to: limits of rate, as many at once as the controller says, and bounded
    memory. Any number of threads use it.
    """

    def __init__(
        self,
        controller: Controller,
        throttle: Throttle | None = None,
        *,
        room: int = _ROOM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``room``: bytes that may be on their way at a time; a request with more goes alone."""
        self._controller = controller
        self._throttle = throttle or Throttle()
        self._room = room
        self._clock = clock
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._waiting: deque[object] = deque()
        self._bytes = 0

    def limit(self) -> int:
        """How many may work at once."""
        return self._controller.limit

    @contextmanager
    def carrying(self, size: int) -> Iterator[None]:
        """Around what is done with a file, lock and all, of which ``size`` bytes are sent: who waits here must not keep
        the site from the name. First come, first served, so that a large file gets its turn.
        """
        self._throttle.wait_for_bytes(size)
        held = min(size, _IN_PARTS)
        ticket = object()
        with self._lock:
            self._waiting.append(ticket)
            while self._waiting[0] is not ticket or (self._bytes and self._bytes + held > self._room):
                self._left.wait()
            self._waiting.popleft()
            self._bytes += held
            self._left.notify_all()
        try:
            yield
        finally:
            with self._lock:
                self._bytes -= held
                self._left.notify_all()

    def begin(self) -> None:
        """Wait for leave to send a request; :meth:`end` has to follow."""
        self._throttle.wait_for_request()

    def end(self, size: int = 0, error: BaseException | None = None) -> None:
        """A request with ``size`` bytes was answered, or ended with ``error``."""
        with self._lock:
            if isinstance(error, S3Error) and is_overload(error):
                self._controller.refused(self._clock())
            elif error is None or isinstance(error, S3Error):
                self._controller.finished(size, self._clock())

    def received(self, size: int) -> None:
        """So many bytes come with an answer."""
        self._throttle.received(size)


def is_overload(error: S3Error) -> bool:
    """Whether fewer requests may help: the server says so, or nothing."""
    return says_slow_down(error) or (isinstance(error, S3TransientError) and not error.status)


def says_slow_down(error: S3Error) -> bool:
    """Whether the server asks for fewer requests."""
    return error.status in {429, 503} or error.code in {
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "RequestLimitExceeded",
    }
