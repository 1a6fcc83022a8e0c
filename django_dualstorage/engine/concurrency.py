"""How many requests at once: more while that helps, fewer when the server says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django_dualstorage.exceptions import S3Error, S3TransientError

#: What a request without bytes counts as, in bytes, so that many small files and few large ones compare.
_REQUEST = 64 * 1024
_WINDOW = 0.5
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

    It grows by a quarter for as long as the throughput grows along, takes the last step back when it did not, and
    halves when the server refuses or is silent.
    """

    def __init__(self, maximum: int, *, minimum: int = 1, start: int = 8) -> None:
        self._minimum = float(max(1, minimum))
        self._maximum = float(max(self._minimum, maximum))
        self._limit = min(self._maximum, max(self._minimum, float(start)))
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
        if elapsed < _WINDOW or self._requests < 2 * self.limit:
            return
        self._judge(self._work / elapsed, now)
        self._opened, self._work, self._requests = now, 0, 0

    def refused(self, now: float) -> None:
        """The server said SlowDown, or nothing in time."""
        if self._refused_at is not None and now - self._refused_at < _ONE_EVENT:
            return
        self._refused_at = now
        self._limit = max(self._minimum, self._limit * _BACK_OFF)
        self._before = None
        self._rate = 0.0
        self._opened, self._work, self._requests = now, 0, 0

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


class Gate:
    """Lets as many threads in as the controller allows."""

    def __init__(self, controller: Controller, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._controller = controller
        self._clock = clock
        self._changed = threading.Condition()
        self._inside = 0

    @property
    def limit(self) -> int:
        """Threads that may be inside at present."""
        return self._controller.limit

    @contextmanager
    def passing(self, size: int = 0) -> Iterator[None]:
        """Wait to be let in, and stay while a request with ``size`` bytes is under way; what it raises is noted."""
        with self._changed:
            while self._inside >= self._controller.limit:
                self._changed.wait()
            self._inside += 1
        overloaded = answered = False
        try:
            yield
            answered = True
        except S3Error as error:
            overloaded = says_slow_down(error) or (isinstance(error, S3TransientError) and not error.status)
            answered = not overloaded
            raise
        finally:
            with self._changed:
                self._inside -= 1
                before = self._controller.limit
                if overloaded:
                    self._controller.refused(self._clock())
                elif answered:
                    self._controller.finished(size, self._clock())
                self._changed.notify(1 + max(0, self._controller.limit - before))


def says_slow_down(error: S3Error) -> bool:
    """Whether the server asks for fewer requests."""
    return error.status in {429, 503} or error.code in {
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "RequestLimitExceeded",
    }
