"""Children die where they are told to, and the parent hears how they ended."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.fork import count_lines, kill_at_line, run_in_child


@pytest.fixture
def package(tmp_path: Path) -> ModuleType:
    """A module of three steps, each of which leaves a mark outside."""
    folder = tmp_path / "package"
    folder.mkdir()
    source = folder / "steps.py"
    source.write_text(
        "import threading\n"
        "def steps(mark):\n"
        "    mark('a')\n"
        "    mark('b')\n"
        "    mark('c')\n"
        "def threaded(mark):\n"
        "    thread = threading.Thread(target=steps, args=(mark,))\n"
        "    thread.start()\n"
        "    thread.join()\n"
    )
    spec = importlib.util.spec_from_file_location("steps", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folder_of(package: ModuleType) -> Path:
    assert package.__file__ is not None
    return Path(package.__file__).parent


def test_the_value_comes_back() -> None:
    result = run_in_child(lambda a, b: a + b, 2, 3)
    assert (result.exit_code, result.signal, result.value, result.error) == (0, None, 5, None)
    assert result.unwrap() == 5


def test_a_value_larger_than_the_pipe_comes_back() -> None:
    assert run_in_child(lambda: b"x" * 5_000_000).value == b"x" * 5_000_000


def test_an_exception_comes_back_as_its_traceback() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    result = run_in_child(fail)
    assert result.exit_code == 1
    assert result.error is not None
    assert "LookupError: nothing there" in result.error
    with pytest.raises(RuntimeError, match="nothing there"):
        result.unwrap()


def test_a_value_that_cannot_be_sent_is_an_error() -> None:
    result = run_in_child(threading.Lock)
    assert result.exit_code == 1
    assert result.error is not None
    assert "can't be sent" in result.error


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (3, 3), ("a message", 1)])
def test_an_exit_comes_back_as_its_code(code: str | int | None, expected: int) -> None:
    def leave() -> None:
        raise SystemExit(code)

    assert run_in_child(leave).exit_code == expected


def test_a_killed_child_is_reported_with_its_signal() -> None:
    result = run_in_child(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert (result.exit_code, result.signal, result.killed) == (None, signal.SIGTERM, False)
    assert run_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)).killed


def test_a_child_that_hangs_is_killed() -> None:
    reader, writer = os.pipe()

    def hang() -> None:
        os.write(writer, str(os.getpid()).encode())
        time.sleep(60)

    with pytest.raises(TimeoutError):
        run_in_child(hang, timeout=0.2)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_grandchild_that_lives_on_does_not_hold_up_the_parent() -> None:
    def leave_one_behind() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        return pid

    began = time.monotonic()
    grandchild = run_in_child(leave_one_behind).unwrap()
    os.kill(grandchild, signal.SIGKILL)
    assert time.monotonic() - began < 5


def test_no_cleanup_of_the_parent_runs_in_the_child(tmp_path: Path) -> None:
    import atexit

    mark = tmp_path / "mark"
    atexit.register(mark.touch)
    try:
        assert run_in_child(lambda: None).exit_code == 0
    finally:
        atexit.unregister(mark.touch)
    assert not mark.exists()


def test_only_lines_of_the_package_are_counted(package: ModuleType) -> None:
    lines = count_lines(lambda: package.steps(lambda mark: [mark] * 3), folder_of(package))
    assert lines == [(package.__file__, line) for line in (3, 4, 5)]


def test_lines_in_threads_are_counted(package: ModuleType) -> None:
    lines = count_lines(lambda: package.threaded(lambda mark: None), folder_of(package))
    assert sorted(line for _, line in lines) == [3, 4, 5, 7, 8, 9]


def test_a_failure_while_counting_is_an_error(package: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        count_lines(lambda: package.steps(lambda mark: 1 / 0), folder_of(package))


@pytest.mark.parametrize(("n", "marks"), [(1, ""), (2, "a"), (3, "ab")])
def test_the_child_dies_before_the_line_that_was_named(package: ModuleType, tmp_path: Path, n: int, marks: str) -> None:
    diary = tmp_path / "diary"
    diary.touch()

    def write(mark: str) -> None:
        with open(diary, "a") as file:
            file.write(mark)

    assert kill_at_line(lambda: package.steps(write), folder_of(package), n).killed
    assert diary.read_text() == marks


def test_the_child_dies_at_a_line_in_a_thread(package: ModuleType) -> None:
    assert kill_at_line(lambda: package.threaded(lambda mark: time.sleep(0.01)), folder_of(package), 5).killed


def test_a_line_beyond_the_last_one_lets_the_child_finish(package: ModuleType) -> None:
    result = kill_at_line(lambda: package.steps(lambda mark: None) or "done", folder_of(package), 4)
    assert (result.exit_code, result.signal, result.value) == (0, None, "done")


def test_line_zero_is_refused(package: ModuleType) -> None:
    with pytest.raises(ValueError, match="from 1"):
        kill_at_line(lambda: None, folder_of(package), 0)


def test_the_tracer_of_the_parent_stays(package: ModuleType) -> None:
    before = sys.gettrace()
    count_lines(lambda: package.steps(lambda mark: None), folder_of(package))
    kill_at_line(lambda: package.steps(lambda mark: None), folder_of(package), 1)
    assert sys.gettrace() is before
