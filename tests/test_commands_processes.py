"""The commands as real processes: signals, kills, terminals, and what a shell sees."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_dualstorage.hints import Kind
from tests.support.asserts import assert_sides_equal, on_s3
from tests.support.proxy import FaultProxy, Slow
from tests.support.site import DEADLINE, Site

FILES = 30


@pytest.fixture
def tree(site: Site) -> None:
    for number in range(FILES):
        path = Path(site.storage.location, f"{number}.txt")
        path.write_bytes(b"%d" % number)
        os.utime(path, ns=(number + 1, number + 1))


@pytest.fixture
def stuck(site: Site, tree: None, proxy: FaultProxy) -> Iterator[subprocess.Popen[str]]:
    """A backfill whose first two uploads are done on the server but not answered yet."""
    proxy.fail(Slow(delay=600), method="PUT", key=r"/\d+\.txt$", times=None)
    process = site.start("dualstorage_backfill", "--workers", "2")
    wait_until(lambda: proxy.count("PUT", r"/\d+\.txt$") == 2, process)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def wait_until(what: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def finish(site: Site) -> None:
    """Whatever happened: one more run and a repair, and everything is there."""
    code, out, err = site.run("dualstorage_backfill", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["files"] == FILES
    site.storage.pair.grace = 0
    assert site.run("dualstorage_repair")[0] == 0
    assert_sides_equal(site.storage)


def test_ctrl_c_once_finishes_what_is_in_flight(site: Site, stuck: subprocess.Popen[str], proxy: FaultProxy) -> None:
    stuck.send_signal(signal.SIGINT)
    assert stuck.stderr is not None
    assert "Finishing the files in flight" in stuck.stderr.readline()
    proxy.clear_faults()
    out, _ = stuck.communicate(timeout=DEADLINE)
    assert stuck.returncode == 130
    copied = len(on_s3(site.storage))
    assert 2 <= copied < FILES
    assert f"{copied}  uploaded" in out
    assert not site.storage.pair.journal.count()
    finish(site)


def test_ctrl_c_twice_stops_at_once(site: Site, stuck: subprocess.Popen[str], proxy: FaultProxy) -> None:
    stuck.send_signal(signal.SIGINT)
    assert stuck.stderr is not None
    assert "Finishing" in stuck.stderr.readline()
    stuck.send_signal(signal.SIGINT)
    _, err = stuck.communicate(timeout=DEADLINE)  # nobody has answered the requests yet
    assert stuck.returncode == 130
    assert "Stopped at once" in err
    assert site.storage.pair.journal.count() == 2
    proxy.clear_faults()
    finish_after_grace(site)


def test_kill_and_run_again(site: Site, stuck: subprocess.Popen[str], proxy: FaultProxy) -> None:
    stuck.kill()
    stuck.communicate()
    proxy.clear_faults()
    assert site.storage.pair.journal.count() == 2
    finish_after_grace(site)


def finish_after_grace(site: Site) -> None:
    settings = Path(site.environment["PYTHONPATH"].split(os.pathsep)[0], "site_settings.py")
    settings.write_text(settings.read_text() + "\nDUALSTORAGE_GRACE = 0\n")
    finish(site)


def test_watch_ends_with_sigterm(site: Site) -> None:
    journal = site.storage.pair.journal
    process = site.start("dualstorage_repair", "--watch", "--interval", "1")
    for number in range(2):  # in the first round or a later one
        name = f"{number}.txt"
        Path(site.storage.location, name).write_bytes(b"content")
        journal.announce(Kind.READ, name, phase="dual").leave()
        wait_until(lambda: not journal.count(), process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "uploaded" in out
    assert_sides_equal(site.storage)


def on_terminal(site: Site, *args: str) -> str:
    """What a person sees on the terminal while stdout goes to a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = site.start(*args, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], DEADLINE)[0]:
            shown += os.read(ours, 4096)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, shown
    assert json.loads(out)["files"] == FILES
    return shown.decode()


def test_bar_is_on_a_terminal_only(site: Site, tree: None) -> None:
    shown = on_terminal(site, "dualstorage_backfill", "--json")
    assert "Copying" in shown
    assert "\r" in shown
    code, out, err = site.run("dualstorage_backfill", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["counts"] == {"certified": FILES}


def test_problem_is_on_the_terminal_once(site: Site) -> None:
    os.mkfifo(Path(site.storage.location, "pipe"))
    ours, theirs = pty.openpty()
    process = site.start("dualstorage_backfill", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], DEADLINE)[0]:
            shown += os.read(ours, 4096)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(DEADLINE) == 1
    assert shown.count(b"is a socket, pipe or device") == 1, shown
    assert b"named above" in shown
    process = site.start("dualstorage_backfill", "-v0", stderr=subprocess.STDOUT)  # as cron does
    assert process.communicate(timeout=DEADLINE)[0].count("is a socket, pipe or device") == 1
    code, out, err = site.run("dualstorage_backfill")  # a report of its own names it, too
    assert code == 1
    assert "pipe: is a socket" in out
    assert "pipe: special: is a socket" in err


def test_exit_codes_of_a_shell(site: Site) -> None:
    for args, expected in (
        (["dualstorage_backfill", "--workers", "0"], 2),
        (["dualstorage_backfill", "--prefix", "../"], 2),
        (["dualstorage_repair", "--storage", "nowhere"], 2),
    ):
        code, out, err = site.run(*args)
        assert (code, out) == (expected, "")
        assert "Traceback" not in err
