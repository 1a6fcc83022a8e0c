"""One lock per name, between threads and between processes, and never longer than its process."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from django_dualstorage.exceptions import LockTimeoutError
from django_dualstorage.journal import Journal
from django_dualstorage.locks import NameLocks, release
from tests.support.fork import run_in_child
from tests.support.lab import idle_child


@contextmanager
def hold(locks: NameLocks, name: str) -> Iterator[None]:
    lock = locks.acquire(name)
    try:
        yield
    finally:
        release(lock)


@pytest.fixture
def locks(media_root: Path) -> NameLocks:
    return NameLocks(Journal(str(media_root)), timeout=30)


@pytest.fixture
def impatient(media_root: Path) -> NameLocks:
    return NameLocks(Journal(str(media_root)), timeout=0)


def test_threads_exclude_each_other(locks: NameLocks) -> None:
    inside = 0
    most = 0
    total = 0

    def work() -> None:
        nonlocal inside, most, total
        for _ in range(50):
            with hold(locks, "a.txt"):
                inside += 1
                most = max(most, inside)
                seen = total
                os.sched_yield()
                total = seen + 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, total) == (1, 300)


def test_processes_exclude_each_other(locks: NameLocks, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def work() -> None:
        for _ in range(50):
            with hold(locks, "a.txt"):
                seen = int(counter.read_text())
                os.sched_yield()
                counter.write_text(str(seen + 1))

    threads = [threading.Thread(target=lambda: run_in_child(work).unwrap()) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "200"


def test_names_do_not_exclude_each_other(locks: NameLocks, impatient: NameLocks) -> None:
    with hold(locks, "a.txt"), hold(impatient, "b.txt"):
        pass


def test_waiting_ends_with_a_sentence(locks: NameLocks, impatient: NameLocks) -> None:
    message = r"'a\.txt' has been locked by another operation.*stopped process"
    with hold(locks, "a.txt"), pytest.raises(LockTimeoutError, match=message):
        impatient.acquire("a.txt")
    with hold(impatient, "a.txt"):
        pass


def test_lock_is_released_by_an_error(locks: NameLocks, impatient: NameLocks) -> None:
    with pytest.raises(ZeroDivisionError), hold(locks, "a.txt"):
        raise ZeroDivisionError
    with hold(impatient, "a.txt"):
        pass


def test_kill_releases_the_lock(locks: NameLocks, impatient: NameLocks) -> None:
    def die() -> None:
        locks.acquire("a.txt")
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_in_child(die).killed
    with hold(impatient, "a.txt"):
        pass


def test_forked_child_does_not_keep_the_lock_of_its_parent(locks: NameLocks, impatient: NameLocks) -> None:
    lock = locks.acquire("a.txt")
    with idle_child():
        release(lock)
        with hold(impatient, "a.txt"):
            pass


def test_lost_folder_is_made_again(locks: NameLocks, media_root: Path) -> None:
    with hold(locks, "a.txt"):
        pass
    shutil.rmtree(media_root / ".dualstorage")
    with hold(locks, "a.txt"):
        assert (media_root / ".dualstorage/locks").stat().st_mode & 0o777 == 0o700


def test_name_of_any_bytes_has_a_lock(locks: NameLocks) -> None:
    for name in ("ä", "\udce9", "", "x" * 5000):
        with hold(locks, name):
            pass
