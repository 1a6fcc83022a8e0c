"""A bounded pool of workers that takes Ctrl-C twice."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


class Stop:
    """Whether the person at the keyboard has asked to stop: once to finish what is in flight, twice to leave."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._asked = threading.Event()

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask to finish what is in flight and begin nothing new."""
        self._asked.set()

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
        self._announce("Finishing the files in flight; Ctrl-C again stops at once. Either is safe: run it again.")


class Pool(Generic[Item, Result]):
    """Runs ``work`` on items from many threads and yields results as they come, with at most ``depth`` items ahead."""

    def __init__(self, work: Callable[[Item], Result], workers: int, stop: Stop) -> None:
        self._work = work
        self._workers = max(1, workers)
        self._stop = stop

    def run(self, items: Iterable[Item]) -> Generator[Result, None, None]:
        """The results of all items, in the order in which they are ready. An error in ``work`` or ``items`` ends the
        run and is raised here; items in flight are finished first.
        """
        todo: queue.Queue[Item | object] = queue.Queue(self._workers * 4)
        done: queue.Queue[tuple[str, Result | BaseException | None]] = queue.Queue(self._workers * 8)
        failed = threading.Event()
        abandoned = threading.Event()

        def feed() -> None:
            try:
                for item in items:
                    if self._stop or failed.is_set() or not _put(todo, item, abandoned):
                        break
            except BaseException as error:  # noqa: BLE001  handed to the caller's thread
                _put(done, ("error", error), abandoned)
            for _ in range(self._workers):
                _put(todo, _END, abandoned)

        def serve() -> None:
            while (item := _get(todo, abandoned)) is not _END:
                if failed.is_set():
                    continue
                try:
                    _put(done, ("result", self._work(item)), abandoned)  # type: ignore[arg-type]  # not _END
                except BaseException as error:  # noqa: BLE001  handed to the caller's thread
                    failed.set()
                    _put(done, ("error", error), abandoned)
            _put(done, ("end", None), abandoned)

        threads = [threading.Thread(target=feed, daemon=True, name="dualstorage-feed")]
        threads += [
            threading.Thread(target=serve, daemon=True, name=f"dualstorage-worker-{n}") for n in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        running = self._workers
        error: BaseException | None = None
        try:
            while running:
                # A time-out lets the main thread take signals on every platform.
                try:
                    kind, value = done.get(timeout=0.2)
                except queue.Empty:
                    continue
                if kind == "end":
                    running -= 1
                elif kind == "error":
                    failed.set()
                    error = error or value  # type: ignore[assignment]  # kind tells which it is
                else:
                    yield value  # type: ignore[misc]  # kind tells which it is
        finally:
            abandoned.set()
        if error is not None:
            raise error


def _put(to: queue.Queue[Item], item: Item, abandoned: threading.Event) -> bool:
    while not abandoned.is_set():
        try:
            to.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False


def _get(source: queue.Queue[Item | object], abandoned: threading.Event) -> Item | object:
    while not abandoned.is_set():
        try:
            return source.get(timeout=0.2)
        except queue.Empty:
            continue
    return _END
