"""One lock per name, held by save, delete, backfill, repair and prune, in whatever process they run.

``flock`` on striped files: the kernel releases it when a process dies, however it dies. Two names may share a
stripe; they then wait for each other and nothing else happens.
"""

from __future__ import annotations

import fcntl
import os
import time
from hashlib import blake2b
from typing import Final

from django_dualstorage.exceptions import LockTimeoutError
from django_dualstorage.hints import DIR_MODE, FILE_MODE
from django_dualstorage.journal import Journal
from django_dualstorage.ownership import make_file, make_folder

STRIPES: Final = 1024


class NameLocks:
    """The locks of one MEDIA_ROOT."""

    def __init__(self, journal: Journal, *, timeout: float = 60.0) -> None:
        self._folder = os.path.join(journal.root, "locks")
        self._timeout = timeout

    def acquire(self, name: str) -> int:
        """Take the lock of ``name``; returns what :func:`release` wants. The caller must release it in any case.

        The file is opened anew each time: a lock belongs to the open file, so threads that shared one descriptor
        would all hold it at once, and so would a forked child. Raises LockTimeoutError if another operation keeps it
        longer than the timeout.
        """
        # Not the journal's keyed hash: the lock must be the same for a process that knows an older key.
        digest = blake2b(os.fsencode(name), digest_size=4).digest()
        path = f"{self._folder}/{int.from_bytes(digest, 'big') % STRIPES}"
        fd = self._opened(path)
        try:
            self._wait(fd, name)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _opened(self, path: str) -> int:
        while True:
            try:
                return os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                pass
            try:
                return make_file(path, os.O_RDWR, FILE_MODE)
            except FileExistsError:
                continue  # another process was first
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self._folder), exist_ok=True)
                make_folder(self._folder, DIR_MODE)

    def _wait(self, fd: int, name: str) -> None:
        deadline = time.monotonic() + self._timeout
        pause = 0.001
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockTimeoutError(
                        f"{name!r} has been locked by another operation for {self._timeout:.0f} s. If S3 is slow this "
                        "passes; otherwise look for a stopped process that has a file in "
                        f"{self._folder} open."
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.05)
            else:
                return


def release(fd: int) -> None:
    """Give a lock back."""
    # Closing would not do if a forked child had inherited the descriptor.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
