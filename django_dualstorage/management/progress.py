"""Progress: a bar on a terminal, a line now and then elsewhere, and a line whenever SIGUSR1 asks for one."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from django_dualstorage.core.meter import Meter
from django_dualstorage.core.quantities import show_bytes
from django_dualstorage.core.report import FileResult

logger = logging.getLogger("django_dualstorage.command")

#: Seconds between two lines where there is no terminal.
LINE_EVERY = 10.0
#: Seconds after which the files are counted, so that short runs need not pay for it.
COUNT_AFTER = 3.0
#: Seconds that whoever asked by a signal waits at most.
_TICK = 0.1

Count = Callable[[Callable[[], bool]], "int | None"]
"""Counts the files that there are to look at, and gives up with None when what it is given says so."""


def printable(text: str) -> str:
    """A file may have any name, also one that would write to the terminal or add lines to a log."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def reaches_stderr() -> bool:
    """Whether what is logged here as a warning comes out on stderr, as it does where nothing else is configured."""
    here: logging.Logger | None = logger
    handlers: list[logging.Handler] = []
    while here is not None:
        handlers += here.handlers
        here = here.parent if here.propagate else None
    return not handlers or any(getattr(handler, "stream", None) is sys.stderr for handler in handlers)


class Progress:
    """What a running command says of itself. Call it with each result, from one thread."""

    def __init__(
        self, what: str, write: Callable[[str], object], *, terminal: bool, count: Count | None, quiet: bool = False
    ) -> None:
        """``quiet``: only who asks by a signal gets a line."""
        self.meter = Meter(time.monotonic())
        self._what = what
        self._write = write
        self._terminal = terminal
        self._quiet = quiet
        self._count = count
        self._ended = threading.Event()
        self._asked = False

    def __call__(self, result: FileResult) -> None:
        """One file is done with."""
        self.meter.add(result)
        if result.outcome.is_problem:
            logger.warning("%s: %s: %s", printable(result.name), result.outcome, printable(result.detail))

    def counted(self, files: int, size: int) -> None:
        """So many files needed nothing."""
        self.meter.add_many(files)

    def ask(self) -> None:
        """Have a line printed at once. Only sets a flag, so a signal handler may call it."""
        self._asked = True

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs."""
        threads = [threading.Thread(target=self._show, name="dualstorage-progress", daemon=True)]
        if self._count is not None:
            threads.append(threading.Thread(target=self._count_files, name="dualstorage-count", daemon=True))
        for thread in threads:
            thread.start()
        try:
            with self._on_signal():
                yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def _on_signal(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGUSR1, lambda number, frame: self.ask())
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, before)

    def _show(self) -> None:
        with tqdm(desc=self._what, unit=" files", file=sys.stderr, disable=not self._terminal, leave=False) as bar:
            told = sampled = time.monotonic()
            while not self._ended.wait(_TICK):
                now = time.monotonic()
                if now - sampled >= 1:
                    sampled = now
                    self.meter.sample(now)
                if self._terminal:
                    bar.total = self.meter.total
                    bar.set_postfix_str(f"{show_bytes(self.meter.speed(now)[1])}/s", refresh=False)
                    if not bar.update(self.meter.files - bar.n):
                        bar.refresh()  # the clock goes on during a large file, too
                if self._asked or (not self._terminal and not self._quiet and now - told >= LINE_EVERY):
                    self._asked = False
                    told = now
                    line = f"{self._what}: {self.meter.line(now)}"
                    if self._terminal:
                        bar.write(line, file=sys.stderr)
                    else:
                        self._write(line)

    def _count_files(self) -> None:
        if self._count is not None and not self._ended.wait(COUNT_AFTER):
            try:
                self.meter.total = self._count(self._ended.is_set)
            except OSError as error:
                logger.debug("The files could not be counted, so no end can be foretold: %s", error)
