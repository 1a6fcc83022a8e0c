"""One lock per name, held by save, delete, backfill, repair and prune, in whatever process they run.

``flock`` on striped files: the kernel releases it when a process dies, however it dies. Two names may share a
stripe; they then wait for each other and nothing else happens.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final

from django_dualstorage.exceptions import JournalError
from django_dualstorage.journal import FILE_MODE, Journal

STRIPES: Final = 4096


class NameLocks:
    """The locks of one MEDIA_ROOT."""

    def __init__(self, journal: Journal, *, timeout: float = 60.0) -> None:
        self._journal = journal
        self._timeout = timeout

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock of ``name``. Raises JournalError if another operation keeps it longer than the timeout.

        The file is opened anew each time: a lock belongs to the open file, so threads that shared one descriptor
        would all hold it at once, and so would a forked child.
        """
        digest = blake2b(os.fsencode(name), digest_size=4, key=self._journal.key).digest()
        path = f"{self._journal.root}/locks/{int.from_bytes(digest, 'big') % STRIPES:03x}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            self._acquire(fd, name)
            yield
        finally:
            # Closing would not do if a forked child had inherited the descriptor.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _acquire(self, fd: int, name: str) -> None:
        deadline = time.monotonic() + self._timeout
        pause = 0.001
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise JournalError(
                        f"{name!r} has been locked by another operation for {self._timeout:.0f} s. If S3 is slow this "
                        "passes; otherwise look for a stopped process that has a file in "
                        f"{self._journal.root}/locks open."
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.05)
            else:
                return
