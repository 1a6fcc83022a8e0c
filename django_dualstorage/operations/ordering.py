"""In which order files are copied, however many they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice

from django_dualstorage.core.objects import ListedObject
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.operations.comparison import BATCH, Compared, spooling


class Order(str, Enum):
    """Which files come first. The value is the word on the command line."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LARGEST = "largest"
    SMALLEST = "smallest"
    NAME = "name"

    def __str__(self) -> str:
        return self.value

    @property
    def by_age(self) -> bool:
        """Whether it goes by the local modification time, which what only S3 has does not have."""
        return self in {Order.NEWEST, Order.OLDEST}


_QUERIES = {
    order: f"SELECT * FROM todo ORDER BY {columns}"  # noqa: S608  the constants below
    for order, columns in {
        Order.NEWEST: "mtime_ns DESC, name",
        Order.OLDEST: "mtime_ns, name",
        Order.LARGEST: "coalesce(size, listed_size) DESC, name",
        Order.SMALLEST: "coalesce(size, listed_size), name",
        Order.NAME: "name",
    }.items()
}


def ordered(things: Iterable[Compared], order: Order) -> Iterator[Compared]:
    """``things`` in that order, but what is ``odd`` first. Nothing else comes before all have been read.

    They wait in a temporary SQLite table, so the memory is bounded. Raises SpoolError.
    """
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        with spooling():
            database.execute("PRAGMA journal_mode = OFF")
            database.execute(
                "CREATE TABLE todo (name TEXT, size INTEGER, mtime_ns INTEGER, key TEXT, listed_size INTEGER, "
                "etag TEXT, certified INTEGER)"
            )
        source = iter(things)
        while chunk := list(islice(source, BATCH)):
            rows = []
            for one in chunk:
                if one.odd is not None:
                    yield one
                else:
                    rows.append(_row(one))
            with spooling():
                database.execute("BEGIN")
                database.executemany("INSERT INTO todo VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                database.execute("COMMIT")
        with spooling():
            found = database.execute(_QUERIES[order])
            batch = found.fetchmany(BATCH)
        while batch:
            for name, size, mtime_ns, key, listed_size, etag, certified in batch:
                local = None if size is None else Stamp(size, mtime_ns)
                listed = None if key is None else ListedObject(key, listed_size, etag)
                yield Compared(name, local, listed, bool(certified))
            with spooling():
                batch = found.fetchmany(BATCH)
    finally:
        database.close()


def _row(one: Compared) -> tuple[object, ...]:
    local = (None, None) if one.local is None else (one.local.size, one.local.mtime_ns)
    listed = (None, None, None) if one.listed is None else (one.listed.key, one.listed.size, one.listed.etag)
    return (one.name, *local, *listed, one.certified)
