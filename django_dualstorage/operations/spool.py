"""What a verification has seen and found, on the disk and not in memory."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.operations.comparison import spooling

_CACHE_KIB: Final = 8 * 1024
_PAGE: Final = 1000
#: Names in one question; older releases of SQLite take 999.
_NAMES: Final = 500


class Seen(NamedTuple):
    """One name as the comparison showed it."""

    name: str
    #: See :func:`~django_dualstorage.core.preflight.fold_hash`; None for a name that the disk has not.
    fold: int | None
    #: Nanoseconds since the epoch; None for a name that the disk has not.
    mtime_ns: int | None
    on_s3: bool


class Spool:
    """Temporary tables, in a file that the system removes with the process. Threads may use it at once."""

    def __init__(self) -> None:
        """Raises SpoolError if there is no room."""
        self.counts: Counter[Difference] = Counter()
        self._lock = threading.Lock()
        # An empty name: a file of its own in the system's temporary folder, removed at once, so kills leave nothing.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        with spooling():
            for statement in (
                f"PRAGMA cache_size = -{_CACHE_KIB}",
                "PRAGMA journal_mode = OFF",
                "PRAGMA synchronous = OFF",
                "CREATE TABLE seen (name TEXT, fold INTEGER, mtime_ns INTEGER, on_s3 INTEGER)",
                "CREATE TABLE doubt (name TEXT)",
                "CREATE TABLE busy (name TEXT PRIMARY KEY) WITHOUT ROWID",
                "CREATE TABLE reference (name TEXT, model TEXT, pk TEXT, field TEXT)",
                "CREATE TABLE found (kind TEXT, name TEXT, side TEXT, detail TEXT)",
            ):
                self._database.execute(statement)

    def close(self) -> None:
        """Give the temporary file back."""
        self._database.close()

    # -- writing ---------------------------------------------------------------------------------------------------

    def see(self, seen: Sequence[Seen], doubts: Iterable[str]) -> None:
        """Add what a batch of the comparison showed, and the names that somebody has to look at."""
        self._insert("INSERT INTO seen VALUES (?, ?, ?, ?)", seen)
        self._insert("INSERT INTO doubt VALUES (?)", ((name,) for name in doubts))

    def refer(self, references: Iterable[tuple[str, str, str, str]]) -> None:
        """Add rows of the database: name, model, primary key, field."""
        self._insert("INSERT INTO reference VALUES (?, ?, ?, ?)", references)

    def find(self, found: Iterable[Found]) -> None:
        """Add findings."""
        rest = iter(found)
        # First gathered, then written: what gathers them may be reading here.
        while chunk := list(islice(rest, _PAGE)):
            self._insert(
                "INSERT INTO found VALUES (?, ?, ?, ?)",
                [(one.kind.value, one.name, one.side.value, one.detail) for one in chunk],
            )
            self.counts.update(one.kind for one in chunk)

    def leave_open(self, names: Iterable[str]) -> None:
        """Add names of which nothing can be said."""
        self._insert("INSERT OR IGNORE INTO busy VALUES (?)", ((name,) for name in names))

    def forget(self, found: Sequence[Found]) -> None:
        """Take findings back: they were mended."""
        self._insert("DELETE FROM found WHERE kind = ? AND name = ?", ((one.kind.value, one.name) for one in found))
        self.counts.subtract(one.kind for one in found)

    def index(self) -> None:
        """Sort what was written, so that it can be asked for by name. Cheaper now than with each row."""
        with self._lock, spooling():
            for table in ("seen", "doubt", "reference", "found"):
                self._database.execute(f"CREATE INDEX IF NOT EXISTS {table}_name ON {table} (name)")

    def _insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._lock, spooling():
            self._database.execute("BEGIN")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")

    # -- reading, a page at a time ---------------------------------------------------------------------------------

    def doubts(self) -> Iterator[str]:
        """The names to be looked at, each once."""
        last = ""
        while page := self._rows("SELECT DISTINCT name FROM doubt WHERE name > ? ORDER BY name LIMIT ?", last, _PAGE):
            last = page[-1][0]
            yield from (name for (name,) in page)

    def folds(self) -> Iterator[list[str]]:
        """Groups of names on the disk that may be twins."""
        with self._lock, spooling():
            self._database.execute(
                "CREATE TEMP TABLE shared AS SELECT fold FROM seen WHERE fold IS NOT NULL GROUP BY fold"
                " HAVING count(*) > 1"
            )
            # Only those names, of which there are few, are sorted by their hash.
            self._database.execute(
                "CREATE TEMP TABLE twin AS SELECT fold, name FROM seen WHERE fold IN (SELECT fold FROM shared)"
                " ORDER BY fold"
            )
        group: list[str] = []
        fold = last = 0
        while page := self._rows("SELECT rowid, fold, name FROM twin WHERE rowid > ? LIMIT ?", last, _PAGE):
            last = page[-1][0]
            for _, its_fold, name in page:
                if its_fold != fold and group:
                    yield group
                    group = []
                fold = its_fold
                group.append(name)
        if group:
            yield group

    def on_both_sides(self) -> Iterator[str]:
        """The names that the disk and S3 have, without those that are known to be unequal."""
        known = [kind.value for kind in Difference if kind.is_problem and kind is not Difference.UNSTAMPED]
        marks = ", ".join("?" * len(known))
        last = ""
        query = (
            "SELECT name FROM seen s WHERE name > ? AND mtime_ns IS NOT NULL"  # noqa: S608
            f" AND on_s3 AND NOT EXISTS (SELECT 1 FROM found f WHERE f.name = s.name AND kind IN ({marks}))"
            " ORDER BY name LIMIT ?"
        )
        while page := self._rows(query, last, *known, _PAGE):
            last = page[-1][0]
            yield from (name for (name,) in page)

    def unreferenced(self, younger_ns: int) -> Iterator[str]:
        """Names on either side that no row has; not those on the disk that are younger than ``younger_ns``."""
        last = ""
        query = (
            "SELECT name FROM seen s WHERE name > ? AND coalesce(mtime_ns, 0) < ?"
            " AND NOT EXISTS (SELECT 1 FROM reference r WHERE r.name = s.name) ORDER BY name LIMIT ?"
        )
        while page := self._rows(query, last, younger_ns, _PAGE):
            last = page[-1][0]
            yield from (name for (name,) in page)

    def dangling(self) -> Iterator[tuple[str, str, str, str]]:
        """Rows (name, model, primary key, field) whose name neither side has."""
        last = 0
        query = (
            "SELECT rowid, name, model, pk, field FROM reference r WHERE rowid > ?"
            " AND NOT EXISTS (SELECT 1 FROM seen s WHERE s.name = r.name) ORDER BY rowid LIMIT ?"
        )
        while page := self._rows(query, last, _PAGE):
            last = page[-1][0]
            for _, name, model, pk, field in page:
                yield name, model, pk, field

    def referenced(self, names: Sequence[str]) -> set[str]:
        """Those of ``names`` that some row has."""
        found: set[str] = set()
        for start in range(0, len(names), _NAMES):
            some = names[start : start + _NAMES]
            marks = ", ".join("?" * len(some))
            query = f"SELECT name FROM reference WHERE name IN ({marks})"  # noqa: S608  marks alone
            found.update(name for (name,) in self._rows(query, *some))
        return found

    def has_references(self) -> bool:
        """Whether any row names a file."""
        return bool(self._rows("SELECT 1 FROM reference LIMIT 1"))

    def found(self, kind: Difference | None = None, limit: int | None = None) -> Iterator[Found]:
        """The findings, of one kind or all, in the order in which they were made; ``limit`` of them at most."""
        last = 0
        where = "" if kind is None else " AND kind = ?"
        query = f"SELECT rowid, kind, name, side, detail FROM found WHERE rowid > ?{where} ORDER BY rowid LIMIT ?"  # noqa: S608
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self._rows(query, last, *([] if kind is None else [kind.value]), size)
            for _, its_kind, name, side, detail in page:
                yield Found(Difference(its_kind), name, Side(side), detail)
            if len(page) < size:
                return
            last = page[-1][0]
            left = None if left is None else left - len(page)

    def unjudged(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` of which this run cannot say that nothing is wrong: they were written to all the time, or
        an error kept it from looking at them, or they or a folder above could not be read.
        """
        return {name for name in names if self._is_unjudged(name)}

    def _is_unjudged(self, name: str) -> bool:
        parts = name.split("/")
        folders = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        marks = ", ".join("?" * len(folders))
        query = (
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM busy WHERE name = ?)"  # noqa: S608  marks alone
            " OR EXISTS (SELECT 1 FROM found WHERE name = ? AND kind = ?)"
            f" OR EXISTS (SELECT 1 FROM found WHERE name IN ({marks}) AND kind = ?)"
        )
        found = self._rows(query, name, name, Difference.FAILED.value, *folders, Difference.UNREADABLE.value)
        return bool(found)

    def names_on_s3(self, limit: int, salt: int) -> list[str]:
        """Some names that S3 has, the same ones for the same ``salt``."""
        rows = self._rows(
            "SELECT name FROM seen WHERE on_s3 ORDER BY (rowid * 2654435761 + ?) % 1000003, name LIMIT ?",
            salt,
            limit,
        )
        return [name for (name,) in rows]

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._lock, spooling():
            return self._database.execute(query, parameters).fetchall()
