"""The inventory: which object was seen to be the copy of which local version, so that nobody has to ask again.

A listing carries no metadata, so no stamps; but it has each object's ETag. Whoever has seen an object's stamp, or has
written the object, notes the ETag here. An object that a listing shows with that ETag is the copy of that version
still: the same ETag means the same bytes. A cache: losing it costs time (a HEAD for each file), never truth.

One SQLite file in the journal's folder for each bucket and prefix. It is not flushed to the disk on purpose: after a
power loss it may be damaged, is found to be, and is made anew.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from hashlib import blake2b
from typing import Final, NamedTuple

from django_dualstorage.hints import DIR_MODE, FILE_MODE
from django_dualstorage.ownership import make_file, make_folder

logger = logging.getLogger("django_dualstorage.inventory")

#: "dsin": whose file it is, in SQLite's header.
_APPLICATION_ID: Final = 0x6473696E
_LAYOUT: Final = 1
#: Seconds that one process waits for another that is writing.
_PATIENCE: Final = 30.0


class Certified(NamedTuple):
    """One row: an object with ``etag`` is the copy of this version of ``name``."""

    name: str
    #: Bytes.
    size: int
    #: Nanoseconds since the epoch.
    mtime_ns: int
    #: Without its quotes: see :func:`~django_dualstorage.core.objects.bare_etag`.
    etag: str


class Speed(NamedTuple):
    """What the last run moved in which time."""

    files: int
    bytes: int
    seconds: float

    def estimate(self, files: int, size: int) -> float:
        """Seconds for that many files and bytes at this speed: whichever of the two takes longer."""
        by_files = files / self.files if self.files else 0.0
        by_bytes = size / self.bytes if self.bytes else 0.0
        return self.seconds * max(by_files, by_bytes)


class Inventory:
    """What has been certified between one MEDIA_ROOT and one prefix of one bucket. Building one touches nothing.

    Threads and processes may use the same file at once. Nothing here raises for a file that cannot be used: it is
    logged, and counts as empty.
    """

    def __init__(self, folder: str, identity: str) -> None:
        """``folder`` is the journal's. ``identity`` names endpoint, bucket and prefix: another has its own file."""
        digest = blake2b(identity.encode(), digest_size=16).hexdigest()
        self.path = os.path.join(folder, f"inventory-{digest}.sqlite")
        self._lock = threading.Lock()

    def usable(self) -> bool:
        """Whether the file is there and ours, after making it where it is not."""
        with self._lock:
            try:
                self._make_if_needed()
            except (OSError, sqlite3.Error) as error:
                logger.warning("The inventory %s cannot be used, so more has to be asked of S3: %s", self.path, error)
                return False
        return True

    def note(self, rows: Iterable[Certified]) -> bool:
        """Remember many rows at once; whether it could be done."""
        rows = list(rows)
        return not rows or self._write("INSERT OR REPLACE INTO certified VALUES (?, ?, ?, ?)", rows)

    def note_speed(self, speed: Speed) -> bool:
        """Remember how fast the last run was; whether it could be done."""
        return self._write("INSERT OR REPLACE INTO speed VALUES (1, ?, ?, ?)", [speed])

    def speed(self) -> Speed | None:
        """How fast the last run was; None if nobody knows. Makes nothing."""
        if not os.path.exists(self.path) or not self.usable():
            return None
        try:
            with closing(self._opened()) as database:
                row = database.execute("SELECT files, bytes, seconds FROM speed").fetchone()
        except sqlite3.Error:
            return None  # an estimate is not worth a word
        return Speed(*row) if row else None

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> bool:
        for _ in range(2):
            if not self.usable():
                return False
            try:
                with self._lock, closing(self._opened()) as database, database:
                    database.executemany(statement, rows)
            except sqlite3.OperationalError as error:  # busy, full, read-only: nothing is wrong with the file itself
                logger.warning("The inventory %s did not take %d rows: %s", self.path, len(rows), error)
                return False
            except sqlite3.DatabaseError as error:
                self.forget(error)
            else:
                return True
        return False

    def forget(self, why: BaseException | str) -> None:
        """Drop the file, which has turned out to be damaged; it is made anew when it is needed."""
        logger.warning("The inventory %s is dropped and made anew: %s", self.path, why)
        for path in (self.path, f"{self.path}-journal"):
            with suppress(OSError):
                os.unlink(path)

    def __len__(self) -> int:
        """How many rows there are."""
        if not self.usable():
            return 0
        with closing(self._opened()) as database:
            return int(database.execute("SELECT count(*) FROM certified").fetchone()[0])

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=_PATIENCE)
        try:
            # A rollback journal works on every local filesystem; emptying it is cheaper than removing it.
            database.execute("PRAGMA journal_mode = TRUNCATE")
            database.execute("PRAGMA synchronous = OFF")
        except BaseException:
            database.close()
            raise
        return database

    def _make_if_needed(self) -> None:
        if os.path.exists(self.path):
            try:
                with closing(self._opened()) as database:
                    ours = _pragma(database, "application_id") == _APPLICATION_ID
                    if ours and _pragma(database, "user_version") == _LAYOUT:
                        return
                why = "it is another program's, or another version's"
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                why = str(error)
            self.forget(why)
        with suppress(FileExistsError):
            make_folder(os.path.dirname(self.path), DIR_MODE)  # not MEDIA_ROOT itself, if that is not mounted
        # Made aside and renamed in, so that nobody opens it half made. SQLite gives its journal the same mode.
        aside = f"{self.path}.{secrets.token_hex(8)}"
        os.close(make_file(aside, os.O_RDWR, FILE_MODE))
        try:
            with closing(sqlite3.connect(aside)) as database, database:
                database.execute("PRAGMA journal_mode = MEMORY")
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {_LAYOUT}")
                database.execute(
                    "CREATE TABLE certified (name TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, "
                    "etag TEXT NOT NULL) WITHOUT ROWID"
                )
                database.execute(
                    "CREATE TABLE speed (id INTEGER PRIMARY KEY, files INTEGER NOT NULL, bytes INTEGER NOT NULL, "
                    "seconds REAL NOT NULL)"
                )
            with suppress(FileExistsError):  # another process was first
                os.link(aside, self.path)
        except OSError:
            os.replace(aside, self.path)  # a filesystem without hard links
        finally:
            with suppress(FileNotFoundError):
                os.unlink(aside)


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])
