"""Both sides, side by side: the tree is walked, the bucket is listed, and neither is held in memory.

The listing goes into a temporary SQLite table, which lies on the disk as soon as it is large and vanishes with the
process. The walk is joined with it, and with the inventory, in batches, inside SQLite: a file about which nothing is in
doubt costs no request and next to no Python.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, Final, NamedTuple

from django_dualstorage.core.names import is_reserved
from django_dualstorage.core.objects import ListedObject
from django_dualstorage.core.report import FileResult
from django_dualstorage.core.selection import EVERYTHING, Selection
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.exceptions import SpoolError
from django_dualstorage.inventory import Inventory
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.sides.walk import Version, walk_versions

#: Files that are joined at a time.
BATCH: Final = 1000
#: KiB of pages that SQLite keeps of each database.
_CACHE: Final = 16 * 1024


class Compared(NamedTuple):
    """One name, as both sides showed it. Nothing is locked: either may be out of date already."""

    name: str
    #: None: only on S3.
    local: Stamp | None
    #: None: not on S3.
    listed: ListedObject | None
    #: The inventory knows this local version under the listed ETag.
    certified: bool = False
    #: What the walk could not take (a link, a special file, ...), else None.
    odd: FileResult | None = None


class Batch(NamedTuple):
    """What one step of a comparison found."""

    #: Certified files that were only counted, and their bytes.
    unchanged: int
    unchanged_bytes: int
    others: list[Compared]


def inventory_of(pair: Pair) -> Inventory:
    """The inventory of this MEDIA_ROOT and this prefix of the bucket."""
    return Inventory(pair.journal.root, f"{pair.s3.identity}/{pair.s3.configuration.location.strip('/')}")


def compare(
    root: str,
    list_objects: Iterable[tuple[str, ListedObject]],
    inventory: Inventory | None,
    *,
    prefix: str = "",
    selection: Selection = EVERYTHING,
) -> Iterator[Compared]:
    """Everything below ``root`` whose name begins with ``prefix``, then every object that no local file belongs to.

    ``list_objects`` gives the objects below the same prefix, in any order, as :meth:`S3Side.list_all` does; it is read
    to its end first. Names of this package are on neither side. ``selection`` is applied to both sides, but its age to
    the local one only. Raises FileNotFoundError if ``root`` is not there, SpoolError if there is no room for temporary
    files, and what ``list_objects`` raises.
    """
    with closing(Comparison(list_objects, inventory, prefix=prefix, selection=selection)) as comparison:
        for batch in comparison.of(root):
            yield from batch.others


class Comparison:
    """The listing in a table of its own, to be compared with the tree; :meth:`close` it. For one thread at a time."""

    def __init__(
        self,
        list_objects: Iterable[tuple[str, ListedObject]],
        inventory: Inventory | None,
        *,
        prefix: str = "",
        selection: Selection = EVERYTHING,
    ) -> None:
        """Reads ``list_objects`` to its end. See :func:`compare`."""
        self._prefix = prefix
        self._selection = selection
        #: The location of the storage in the bucket: what keys have before the name.
        self._before = ""
        # An empty name: a file of its own in the system's temporary folder, removed at once, so kills leave nothing.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            with spooling():
                self._prepare()
                self.objects = self._load(list_objects)
            # Which of the listed objects belong to a local file: one byte each.
            self._matched = bytearray(self.objects)
            self._inventory = inventory if inventory is not None and inventory.usable() else None
            self._attach()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the temporary file back."""
        self._database.close()

    def of(self, root: str, *, count_certified: bool = False, but: Container[str] = ()) -> Iterator[Batch]:
        """Compare the tree below ``root``. With ``count_certified`` certified files are only counted, not named,
        ``but`` those.
        """
        walked = walk_versions(root, self._prefix)
        while chunk := list(islice(walked, BATCH)):
            yield self._compare_chunk(chunk, count_certified=count_certified, but=but)
        yield from self._only_listed()

    def _prepare(self) -> None:
        run = self._database.execute
        run(f"PRAGMA cache_size = -{_CACHE}")
        run("PRAGMA journal_mode = OFF")
        run("PRAGMA synchronous = OFF")
        run("CREATE TABLE listed (name TEXT PRIMARY KEY, nr INTEGER, size INTEGER, etag TEXT) WITHOUT ROWID")
        run("CREATE TABLE batch (name TEXT, size INTEGER, mtime_ns INTEGER)")
        run("CREATE TABLE wanted (name TEXT PRIMARY KEY) WITHOUT ROWID")
        if self._selection.names is not None:
            run("BEGIN")
            names = ((name,) for name in self._selection.names)
            self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", names)
            run("COMMIT")

    def _load(self, list_objects: Iterable[tuple[str, ListedObject]]) -> int:
        number = 0
        takes_all, takes = not self._selection.rules, self._selection.takes_name
        objects = iter(list_objects)
        while chunk := list(islice(objects, BATCH)):
            rows = []
            for name, listed in chunk:
                if (name[0] == "." or "/." in name) and is_reserved(name):
                    continue
                if takes_all or takes(name):
                    rows.append((name, number, listed.size, listed.etag))
                    number += 1
            key, name = chunk[0][1].key, chunk[0][0]
            self._before = key[: len(key) - len(name)]
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")
        return number

    def _attach(self) -> None:
        if self._inventory is None:
            known = "NULL"
        else:
            self._database.execute("ATTACH ? AS inventory", (self._inventory.path,))
            self._database.execute(f"PRAGMA inventory.cache_size = -{_CACHE}")
            known = "c.name"
        query = f"SELECT b.name, b.size, b.mtime_ns, l.nr, l.size, l.etag, {known}"
        query += "" if self._selection.names is None else ", w.name"
        query += " FROM batch b LEFT JOIN listed l ON l.name = b.name"
        if self._inventory is not None:
            # The columns that must be equal, not only the name: an older version's row is no row.
            query += (
                " LEFT JOIN inventory.certified c ON c.name = b.name AND c.size = b.size AND c.mtime_ns = b.mtime_ns"
                " AND c.etag = trim(l.etag, '\"') AND c.etag <> '' AND l.size = b.size"
            )
        if self._selection.names is not None:
            query += " LEFT JOIN wanted w ON w.name = b.name"
        self._query = query

    def _compare_chunk(self, chunk: list[Version | FileResult], *, count_certified: bool, but: Container[str]) -> Batch:
        others: list[Compared] = []
        versions = []
        selection = self._selection
        for found in chunk:
            if isinstance(found, Version):
                if not selection.rules or selection.takes_name(found.name):
                    versions.append(found)
            elif selection.takes_odd(found.name):
                others.append(Compared(found.name, None, None, odd=found))
        since, named = selection.since_ns, selection.names is not None
        unchanged = size_of_unchanged = 0
        for row in self._joined(versions):
            name, size, mtime_ns, number, listed_size, etag, known = row[:7]
            if number is not None:
                self._matched[number] = 1
            if (since is not None and mtime_ns < since) or (named and row[7] is None):
                continue
            if known is not None and count_certified and name not in but:
                unchanged += 1
                size_of_unchanged += size
                continue
            listed = None if number is None else ListedObject(self._before + name, listed_size, etag)
            others.append(Compared(name, Stamp(size, mtime_ns), listed, known is not None))
        return Batch(unchanged, size_of_unchanged, others)

    def _joined(self, versions: list[Version]) -> list[tuple[Any, ...]]:
        run = self._database.execute
        with spooling():
            run("BEGIN")
            run("DELETE FROM batch")
            self._database.executemany("INSERT INTO batch VALUES (?, ?, ?)", versions)
            run("COMMIT")
        try:
            return run(self._query).fetchall()
        except sqlite3.DatabaseError as error:
            if self._inventory is None:
                raise
            # Busy for very long, or damaged: from here on it is as if it were empty.
            if not isinstance(error, sqlite3.OperationalError):
                self._inventory.forget(error)
            run("DETACH inventory")
            self._inventory = None
            self._attach()
            with spooling():
                return run(self._query).fetchall()

    def _only_listed(self) -> Iterator[Batch]:
        if all(self._matched):
            return
        query = "SELECT name, nr, size, etag FROM listed"
        if self._selection.names is not None:
            query += " WHERE name IN wanted"
        with spooling():
            rows = self._database.execute(query)
            while chunk := rows.fetchmany(BATCH):
                only = [
                    Compared(name, None, ListedObject(self._before + name, size, etag))
                    for name, number, size, etag in chunk
                    if not self._matched[number]
                ]
                if only:
                    yield Batch(0, 0, only)


@contextmanager
def spooling() -> Iterator[None]:
    """Around work on a temporary database. Raises SpoolError."""
    try:
        yield
    except sqlite3.Error as error:
        raise SpoolError(
            f"The temporary files of this command could not be written ({error}). It keeps the listing of the bucket "
            "in them, some 150 bytes for each object: free some room in /var/tmp, or name a folder that has it in the "
            "environment variable SQLITE_TMPDIR, then run the command again."
        ) from error
