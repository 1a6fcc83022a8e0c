"""Limits of bandwidth and request rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LOOK_UP_EVERY = 0.5


class TokenBucket:
    """Grants what is asked at once and says how long to wait before using it. No clock and no lock of its own.

    Never more than ``burst`` and ``rate`` times the time that has passed have been granted for use, but for the last
    request, which may be larger than the burst.
    """

    def __init__(self, rate: float, burst: float) -> None:
        """``rate`` per second and ``burst`` are greater than 0."""
        if rate <= 0 or burst <= 0:
            raise ValueError("a limit must be greater than 0")
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then: float | None = None

    def take(self, amount: float, now: float) -> float:
        """Seconds to wait, from ``now`` (seconds of a monotonic clock), before ``amount`` may be used."""
        if self._then is not None and now > self._then:
            self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now if self._then is None else max(now, self._then)
        wait = max(0.0, -self._tokens / self._rate)
        self._tokens -= amount
        return wait


class Throttle:
    """Bytes and requests per second of all threads together; either may be unlimited."""

    def __init__(
        self,
        bytes_per_second: float | None = None,
        requests_per_second: float | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``stop`` cuts the waiting short. Raises ValueError for a limit that is not greater than 0."""
        # A burst of a second hides the length of single requests; one of a request keeps "--tps 1" true.
        self._bytes = None if bytes_per_second is None else TokenBucket(bytes_per_second, bytes_per_second)
        self._requests = (
            None
            if requests_per_second is None
            else TokenBucket(requests_per_second, max(1.0, requests_per_second / 10))
        )
        self._stop = stop
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()

    def wait_for_request(self) -> None:
        """Wait for leave to send a request."""
        if self._requests:
            with self._lock:
                wait = self._requests.take(1, self._clock())
            self._sleep_for(wait)

    def wait_for_bytes(self, size: int) -> None:
        """Wait for leave to send ``size`` bytes, and for what was received."""
        if self._bytes:
            with self._lock:
                wait = self._bytes.take(size, self._clock())
            self._sleep_for(wait)

    def received(self, size: int) -> None:
        """Count ``size`` bytes whose number was not known when the request was sent; the next file waits."""
        if self._bytes:
            with self._lock:
                self._bytes.take(size, self._clock())

    def _sleep_for(self, seconds: float) -> None:
        while seconds > 0 and not self._stop():
            slept = min(seconds, _LOOK_UP_EVERY)
            self._sleep(slept)
            seconds -= slept
