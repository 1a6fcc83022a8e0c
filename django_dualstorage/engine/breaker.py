"""A circuit breaker per process: a dead S3 costs a few requests, not every one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("django_dualstorage.s3")


class CircuitBreaker:
    """Opens after ``failures`` failures in a row; while open, a background thread asks S3 whether it is back.

    No caller's request is spent on finding out, so a black-holed S3 costs nobody its time-out once it is open.
    """

    def __init__(self, probe: Callable[[], bool], *, failures: int = 3, interval: float = 5.0) -> None:
        #: Returns whether S3 answers; must not raise. Called in the background thread.
        self._probe = probe
        self._limit = failures
        self._interval = interval
        self._failed = 0
        self._open = False
        self._lock = threading.Lock()
        #: How often it opened in this process.
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Whether to leave S3 alone for now."""
        return self._open

    def succeeded(self) -> None:
        """S3 gave a usable answer, be it a refusal."""
        self._failed = 0

    def failed(self) -> None:
        """S3 gave none."""
        with self._lock:
            self._failed += 1
            if self._failed < self._limit or self._open:
                return
            self._open = True
            self.openings += 1
        logger.warning(
            "S3 failed %d times in a row: the disk serves alone until S3 answers (asked every %.0f s). "
            "Nothing is lost: the journal knows what S3 misses.",
            self._limit,
            self._interval,
        )
        threading.Thread(target=self._wait_for_s3, name="dualstorage-breaker", daemon=True).start()

    def _wait_for_s3(self) -> None:
        while True:
            time.sleep(self._interval)
            try:
                if self._probe():
                    break
            except Exception:  # this thread is the only one that can close the breaker again
                logger.exception("Asking S3 whether it is back failed; asking again.")
        with self._lock:
            self._failed = 0
            self._open = False
        logger.warning("S3 answers again. Run manage.py dualstorage_repair, which tells it what it has missed.")
