"""What a running command says of itself: on a terminal, in a log, and when a signal asks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dualstorage.core.meter import Meter
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.management import progress as module
from django_dualstorage.management.progress import Progress

UPLOADED = FileResult("a", Outcome.UPLOADED, 1_000_000)


def wait_for(lines: list[str], pattern: str) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in list(lines):
            if re.search(pattern, line):
                return line
        time.sleep(0.005)
    raise AssertionError(f"no {pattern} in {lines}")


def test_speed_is_that_of_the_last_half_minute() -> None:
    meter = Meter(started=0.0)
    for second in range(1, 61):
        for _ in range(2 if second <= 30 else 10):
            meter.add(UPLOADED)
        meter.sample(float(second))
    assert meter.speed(60.0) == pytest.approx((10, 10e6), rel=0.1)
    meter.total = 460
    assert meter.left(60.0) == pytest.approx(10, rel=0.1)


def test_line_says_what_is_known() -> None:
    meter = Meter(started=0.0)
    assert meter.line(0.0) == "0 files so far, 0 files/s, 0 B/s"
    for _ in range(1500):
        meter.add(UPLOADED)
    meter.add(FileResult("pipe", Outcome.SPECIAL))
    meter.add_many(499)
    assert meter.line(10.0) == "2,000 files so far, 200 files/s, 150 MB/s, 1 problem"
    meter.total = 8000
    assert meter.line(10.0) == "2,000 of 8,000 files (25 %), 200 files/s, 150 MB/s, about 30 s left, 1 problem"


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), max_size=50), st.none() | st.integers(0, 1000))
@settings(max_examples=50)
def test_numbers_are_never_absurd(steps: list[tuple[float, int]], total: int | None) -> None:
    meter = Meter(started=0.0, total=total)
    now = 0.0
    for pause, files in steps:
        now += pause
        meter.add_many(files)
        meter.sample(now)
        assert min(meter.speed(now)) >= 0
        left = meter.left(now)
        assert left is None or left >= 0
        percent = re.search(r"\((\d+) %\)", meter.line(now))
        assert (percent is None) == (total is None)
        assert percent is None or int(percent[1]) <= 100
    assert len(meter._samples) <= 33 or min(pause for pause, _ in steps) < 1


def test_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY", 0.02)
    monkeypatch.setattr(module, "_TICK", 0.005)
    lines: list[str] = []
    progress = Progress("Copying", lines.append, terminal=False, count=None)
    with progress.shown():
        progress(UPLOADED)
        progress.counted(2, 0)
        wait_for(lines, "^Copying: 3 files so far, ")
    told = len(lines)
    time.sleep(0.05)
    assert len(lines) == told  # it has ended


def test_signal_has_the_line_printed_at_once_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    lines: list[str] = []
    progress = Progress("Copying", lines.append, terminal=False, count=None)
    with progress.shown():
        progress(UPLOADED)
        started = time.monotonic()
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(lines, "^Copying: 1 files so far")
        assert time.monotonic() - started < module.LINE_EVERY / 2
        assert len(lines) == 1
    assert signal.getsignal(signal.SIGUSR1) == before


def test_files_are_counted_only_in_a_run_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[[], bool]] = []

    def count(ended: Callable[[], bool]) -> int:
        asked.append(ended)
        return 4

    with Progress("Copying", print, terminal=False, count=count).shown():
        pass
    assert not asked
    monkeypatch.setattr(module, "COUNT_AFTER", 0.0)
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    monkeypatch.setattr(module, "_TICK", 0.005)
    lines: list[str] = []
    progress = Progress("Copying", lines.append, terminal=False, count=count)
    with progress.shown():
        progress(UPLOADED)
        wait_for(lines, r"^Copying: 1 of 4 files \(25 %\).* left$")
        assert not asked[0]()
    assert asked[0]()


def test_tree_that_cannot_be_counted_only_costs_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(ended: Callable[[], bool]) -> int:
        raise FileNotFoundError("gone")

    monkeypatch.setattr(module, "COUNT_AFTER", 0.0)
    progress = Progress("Copying", print, terminal=False, count=count)
    with progress.shown():
        time.sleep(0.02)
    assert progress.meter.total is None


def test_another_thread_takes_no_signals() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    during: list[object] = []

    def elsewhere() -> None:
        with Progress("Copying", print, terminal=False, count=None).shown():
            during.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert during == [before]


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK", 0.01)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress("Copying", print, terminal=True, count=None)
        progress.meter.total = 8
        with progress.shown():
            for _ in range(3):
                progress(UPLOADED)
            progress.ask()
            time.sleep(0.4)
        terminal.flush()
        os.set_blocking(ours, False)
        shown = ""
        with contextlib.suppress(BlockingIOError):
            while True:
                shown += os.read(ours, 100_000).decode()
    os.close(ours)
    assert re.search(r"Copying: +38%.* 3/8 .*MB/s", shown)
    assert re.search(r"Copying: 3 of 8 files \(37 %\), .* files/s, ", shown)
