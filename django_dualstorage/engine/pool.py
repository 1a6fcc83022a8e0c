"""A bounded pool of workers that takes Ctrl-C twice."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END: Final = object()
#: Results that wait for the caller: from the first number on it is woken, beyond the second the workers wait for it.
_MANY: Final = 128
_TOO_MANY: Final = 512
#: Seconds after which everybody looks up by himself.
_LOOK_UP: Final = 0.05


class Stop:
    """Whether the person at the keyboard has asked to stop: once to finish what is in flight, twice to leave."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._asked = threading.Event()
        self._idle = False

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask to finish what is in flight and begin nothing new."""
        self._asked.set()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """While this lasts nothing is in flight, so there is nothing to announce."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False

    @contextmanager
    def on_ctrl_c(self) -> Iterator[Stop]:
        """Listen to SIGINT and SIGTERM, if this is the main thread; the previous handlers come back after."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self:
            raise KeyboardInterrupt
        self.ask()
        if not self._idle:
            self._announce("Finishing the files in flight; Ctrl-C again stops at once. Either is safe: run it again.")


class Pool(Generic[Item, Result]):
    """Runs ``work`` on items in threads and yields results as they come.

    A worker takes its next item itself, and hands results over in bunches: threads that wake each other for each item
    spend more time on that than on the item.
    """

    def __init__(
        self, work: Callable[[Item], Result], workers: int, stop: Stop, limit: Callable[[], int] | None = None
    ) -> None:
        """At most ``workers`` threads, and no more than ``limit()``, which may change while they run."""
        self._work = work
        self._workers = max(1, workers)
        self._stop = stop
        self._limit = limit

    def run(self, items: Iterable[Item]) -> Generator[Result, None, None]:
        """The results of all items, in the order in which they are ready. An error in ``work`` or ``items`` ends the
        run and is raised here; items in flight are finished first. ``items`` are taken in one thread at a time, each
        when there is a worker for it.
        """
        run = _Run(self._work, items, self._stop, self._allowed)
        try:
            while True:
                run.staff()
                yield from run.ready()
                if run.is_over:
                    break
                # The time-out lets the main thread take signals on every platform.
                run.news.wait(_LOOK_UP)
                run.news.clear()
        finally:
            run.ended = True
        if run.error is not None:
            raise run.error

    def _allowed(self) -> int:
        return self._workers if self._limit is None else max(1, min(self._workers, self._limit()))


class _Run(Generic[Item, Result]):
    """One run of a pool: what its threads share."""

    def __init__(
        self, work: Callable[[Item], Result], items: Iterable[Item], stop: Stop, allowed: Callable[[], int]
    ) -> None:
        self._work = work
        self._items = iter(items)
        self._stop = stop
        self._allowed = allowed
        self._lock = threading.Lock()
        self._results: deque[Result] = deque()
        self._working: set[int] = set()
        #: Nothing new is begun.
        self.ended = False
        self.error: BaseException | None = None
        #: There is something for the caller to do.
        self.news = threading.Event()

    @property
    def is_over(self) -> bool:
        """Nobody works, nobody will, and no result is left."""
        return self.ended and not self._working and not self._results

    def staff(self) -> None:
        """As many workers as are allowed now; those that are too many end by themselves."""
        for number in range(self._allowed()):
            if number not in self._working and not self.ended:
                self._working.add(number)
                threading.Thread(
                    target=self._serve, args=[number], daemon=True, name=f"dualstorage-worker-{number}"
                ).start()

    def ready(self) -> Iterator[Result]:
        """The results so far."""
        while self._results:
            yield self._results.popleft()

    def _serve(self, number: int) -> None:
        patience = threading.Event()  # nobody sets it: it is for sleeping
        try:
            while number < self._allowed() and (item := self._next()) is not _END:
                self._results.append(self._work(item))  # type: ignore[arg-type]  # not _END
                if len(self._results) >= _MANY:
                    self.news.set()
                    while len(self._results) >= _TOO_MANY and not self.ended:
                        patience.wait(_LOOK_UP)
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            self._fail(error)
        finally:
            self._working.discard(number)
            self.news.set()

    def _next(self) -> Item | object:
        with self._lock:
            if self._stop:
                self.ended = True
            if not self.ended:
                try:
                    return next(self._items)
                except StopIteration:
                    self.ended = True
                except BaseException as error:  # noqa: BLE001  handed to the caller's thread
                    self._fail(error)
        return _END

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.ended = True
