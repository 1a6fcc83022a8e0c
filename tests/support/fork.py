"""Processes that die: what a kill -9 leaves behind can only be seen by killing something.

A forked child shares the parent's imports, so a run takes milliseconds and one can afford a kill at *every* line of an
operation. The child has one thread only: what other threads of the parent held stays locked in it, hence the timeouts.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
# Looked up here: a child of a process with threads should do as little as possible that takes a lock.
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class ChildResult:
    """How a child ended: with an exit code and a value or an exception, or by a signal and nothing else."""

    exit_code: int | None
    signal: int | None
    value: Any = None
    error: str | None = None

    @property
    def killed(self) -> bool:
        """Whether it was killed, so that no cleanup ran."""
        return self.signal == signal.SIGKILL

    def unwrap(self) -> Any:
        """The value, or an error that shows the child's own traceback."""
        if self.exit_code != 0 or self.error is not None:
            how = f"was ended by signal {self.signal}" if self.signal else f"ended with {self.exit_code}"
            raise RuntimeError(f"the child {how}\n{self.error or ''}")
        return self.value


def run_in_child(fn: Callable[..., object], *args: Any, timeout: float = 30) -> ChildResult:
    """Call ``fn`` in a forked child, which ends without any cleanup of the parent's (no pytest teardown, no atexit).

    The value must be picklable. A child that takes longer is killed and TimeoutError raised.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12+ warns that a child of a process with threads may hang. It may: that's what the timeout is for.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_the_child(fn, args, reader, writer, parent)
    os.close(writer)
    try:
        data, status = _collect(pid, reader, time.monotonic() + timeout)
    finally:
        os.close(reader)
    if status is None:
        raise TimeoutError(f"the child ran for more than {timeout:g} s and was killed")
    if os.WIFSIGNALED(status):
        return ChildResult(exit_code=None, signal=os.WTERMSIG(status))
    value, error = pickle.loads(data) if data else (None, None)
    return ChildResult(exit_code=os.WEXITSTATUS(status), signal=None, value=value, error=error)


def kill_at_line(
    fn: Callable[[], object], package_dir: str | os.PathLike[str], n: int, *, timeout: float = 30
) -> ChildResult:
    """Call ``fn`` in a child that kills itself before it executes the ``n``-th line (from 1) of code in the package.

    If it executes fewer lines than that, it ends as `run_in_child` does.
    """
    if n < 1:
        raise ValueError("lines are counted from 1")

    def run() -> object:
        lines = itertools.count(1)

        def at_line(frame: FrameType) -> None:
            if next(lines) == n:
                os.kill(os.getpid(), signal.SIGKILL)

        return _traced(fn, package_dir, at_line)

    return run_in_child(run, timeout=timeout)


def count_lines(
    fn: Callable[[], object], package_dir: str | os.PathLike[str], *, timeout: float = 30
) -> list[tuple[str, int]]:
    """The lines of the package that ``fn`` executes, in order: the places where `kill_at_line` can kill it.

    Runs in a child too, so that the parent is in the same state for each of the kills that follow. What ``fn`` raises
    comes out as RuntimeError.
    """

    def run() -> list[tuple[str, int]]:
        lines: list[tuple[str, int]] = []
        _traced(fn, package_dir, lambda frame: lines.append((frame.f_code.co_filename, frame.f_lineno)))
        return lines

    executed: list[tuple[str, int]] = run_in_child(run, timeout=timeout).unwrap()
    return executed


def _traced(
    fn: Callable[[], object], package_dir: str | os.PathLike[str], at_line: Callable[[FrameType], None]
) -> object:
    """Call ``fn`` and ``at_line`` before each line of the package, in this thread and those it starts.

    Replaces the tracer of coverage.py, which in a child that is about to be killed has nothing to save anyway.
    """
    prefix = os.path.join(os.path.realpath(package_dir), "")
    known: dict[str, bool] = {}

    def in_package(filename: str) -> bool:
        if filename not in known:
            known[filename] = os.path.realpath(filename).startswith(prefix)
        return known[filename]

    def local_trace(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            at_line(frame)
        return local_trace

    def global_trace(frame: FrameType, event: str, argument: Any) -> Any:
        # None for all other code, which then runs at full speed.
        return local_trace if in_package(frame.f_code.co_filename) else None

    threading.settrace(global_trace)
    sys.settrace(global_trace)
    try:
        return fn()
    finally:
        sys.settrace(None)
        threading.settrace(None)


def _be_the_child(fn: Callable[..., object], args: tuple[Any, ...], reader: int, writer: int, parent: int) -> NoReturn:
    code = 1
    try:
        _die_with(parent)
        os.close(reader)
        try:
            value = fn(*args)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
            _send(writer, (None, None))
        except BaseException:
            _send(writer, (None, traceback.format_exc()))
            raise
        else:
            try:
                _send(writer, (value, None))
            except BaseException:
                _send(writer, (None, f"the value can't be sent to the parent\n{traceback.format_exc()}"))
                raise
            code = 0
    finally:
        # Not sys.exit: the frames above belong to the parent's test run, and its buffers would be written twice.
        os._exit(code & 0xFF)


def _send(writer: int, outcome: tuple[object, str | None]) -> None:
    rest = memoryview(pickle.dumps(outcome))
    while rest:
        rest = rest[os.write(writer, rest) :]


def _die_with(parent: int) -> None:
    """A run that is interrupted must not leave children behind that go on writing."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _collect(pid: int, reader: int, deadline: float) -> tuple[bytes, int | None]:
    """What the child wrote and how it ended; None if it had to be killed for taking too long.

    The end of the pipe isn't waited for alone: a grandchild may hold it open.
    """
    pieces: list[bytes] = []
    is_open = True
    while True:
        if is_open and select.select([reader], [], [], 0.01)[0]:
            piece = os.read(reader, 1 << 16)
            pieces.append(piece)
            is_open = bool(piece)
            if piece:
                continue
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            while is_open and select.select([reader], [], [], 0)[0]:
                piece = os.read(reader, 1 << 16)
                pieces.append(piece)
                is_open = bool(piece)
            return b"".join(pieces), status
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return b"", None
        if not is_open:
            time.sleep(0.001)
