"""Patience for commands: what S3 fails to answer is asked again, later and at random moments.

The application asks once, because a person waits; a command has the time, and five million requests meet every error.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from django_dualstorage.core.objects import ListedObject, ObjectInfo, Written
from django_dualstorage.engine.boto import AroundPart, Part, part_once
from django_dualstorage.engine.concurrency import Pace
from django_dualstorage.engine.listing import Around, once
from django_dualstorage.engine.objectstore import ALWAYS, Body, Condition, ObjectStore, Source
from django_dualstorage.exceptions import S3Error, S3TransientError

T = TypeVar("T")

_LOOK_UP_EVERY = 0.5


class PagedStore(ObjectStore, Protocol):
    """An ObjectStore whose listing goes on after a page that failed, and its upload after a part."""

    #: Bytes from which on a file is sent in parts.
    multipart_threshold: int

    def put(
        self,
        key: str,
        source: Source,
        parameters: Mapping[str, Any],
        condition: Condition = ALWAYS,
        *,
        sending: Callable[[], None],
        around: AroundPart = part_once,
    ) -> Written:
        """As in ObjectStore; each part is sent by ``around(call, size)``, which may call several times and is called
        in several threads.
        """

    def list_all(self, prefix: str, around: Around = once) -> Iterator[ListedObject]:
        """As in ObjectStore; each page is asked for by ``around(call)``, which may call several times."""


@dataclass(frozen=True)
class Patience:
    """How long to go on."""

    attempts: int = 8
    #: Seconds. Before the second attempt at most ``base`` are waited, then twice that, never more than ``cap``.
    base: float = 0.2
    cap: float = 20.0

    def ceiling(self, failed: int) -> float:
        """The most to wait after that many failures: the wait is anything between 0 and this ("full jitter")."""
        return min(self.cap, self.base * 2.0 ** min(failed - 1, 60))


class RetryingStore:
    """An ObjectStore that tries again what failed for the moment. A refusal, be it of a condition, is final.

    A mutation that went through at a later attempt is not clean if an earlier one may still land, and its errors are
    ``retried``.
    """

    def __init__(
        self,
        store: PagedStore,
        patience: Patience = Patience(),
        *,
        pace: Pace | None = None,
        stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """``pace`` is kept by each attempt (limits of rate and concurrency). After ``stop`` nothing is tried again."""
        self._store = store
        self._patience = patience
        self._pace = pace
        self._stop = stop
        self._sleep = sleep
        self._jitter = jitter

    def put(
        self,
        key: str,
        source: Source,
        parameters: Mapping[str, Any],
        condition: Condition = ALWAYS,
        *,
        sending: Callable[[], None],
    ) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        given_up: list[S3Error] = []

        def around(call: Callable[[], Part], size: int) -> Part:
            try:
                return self._ask(call, size)
            except S3Error as error:
                given_up.append(error)
                raise

        # Each part is a request of its own, of which the pace is told.
        size = source.size if source.size < self._store.multipart_threshold else 0
        return self._mutate(
            lambda note: self._store.put(key, source, parameters, condition, sending=note, around=around),
            sending,
            size,
            given_up,
        )

    def delete(self, key: str, condition: Condition = ALWAYS, *, sending: Callable[[], None]) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._mutate(lambda note: self._store.delete(key, condition, sending=note), sending)

    def restamp(self, info: ObjectInfo, parameters: Mapping[str, Any], *, sending: Callable[[], None]) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._mutate(lambda note: self._store.restamp(info, parameters, sending=note), sending)

    def get(self, key: str, *, start: int = 0, etag: str | None = None) -> Body:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`. The body itself is read once."""
        body = self._ask(lambda: self._store.get(key, start=start, etag=etag))
        if self._pace is not None:
            self._pace.received(max(0, body.info.size - start))
        return body

    def head(self, key: str) -> ObjectInfo | None:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._ask(lambda: self._store.head(key))

    def list_all(self, prefix: str) -> Iterator[ListedObject]:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`. Each page is tried again by itself."""
        return self._store.list_all(prefix, self._ask)

    def list_folder(self, prefix: str) -> tuple[list[str], list[str]]:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._ask(lambda: self._store.list_folder(prefix))

    # -- trying ----------------------------------------------------------------------------------------------------

    def _mutate(
        self,
        attempt: Callable[[Callable[[], None]], Written],
        sending: Callable[[], None],
        size: int = 0,
        given_up: Collection[S3Error] = (),
    ) -> Written:
        left = may_land = False

        def note() -> None:
            nonlocal left
            left = True
            sending()

        failed = 0
        while True:
            left = False
            try:
                written = self._paced(lambda: attempt(note), size)
            except S3Error as error:
                failed += 1
                again = error not in given_up and self._is_worth_another(error, failed)
                if not again:
                    error.retried = error.retried or may_land
                    error.sent = error.sent or may_land
                    raise
                may_land = may_land or (left and error.sent)
                self._wait(failed)
            else:
                return replace(written, clean=written.clean and not may_land)

    def _ask(self, attempt: Callable[[], T], size: int = 0) -> T:
        failed = 0
        while True:
            try:
                return self._paced(attempt, size)
            except S3Error as error:
                failed += 1
                if not self._is_worth_another(error, failed):
                    raise
                self._wait(failed)

    def _paced(self, attempt: Callable[[], T], size: int = 0) -> T:
        pace = self._pace
        if pace is None:
            return attempt()
        pace.begin()
        try:
            answer = attempt()
        except BaseException as error:
            pace.end(size, error)
            raise
        pace.end(size)
        return answer

    def _is_worth_another(self, error: S3Error, failed: int) -> bool:
        return isinstance(error, S3TransientError) and failed < self._patience.attempts and not self._stop()

    def _wait(self, failed: int) -> None:
        wait = self._jitter(0.0, self._patience.ceiling(failed))
        while wait > 0 and not self._stop():
            slept = min(wait, _LOOK_UP_EVERY)
            self._sleep(slept)
            wait -= slept
