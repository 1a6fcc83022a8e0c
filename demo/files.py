"""Files for the site that nobody wrote for it: what installed packages carry, of many kinds and sizes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec

#: Package, folder in the library, endings, and how many files at most.
_SOURCES = (
    ("fontawesomefree", "icons", (".svg",), 900),
    ("fontawesomefree", "fonts", (".ttf", ".woff2"), 20),
    ("django_countries", "flags", (".gif",), 200),
    ("django", "translations", (".mo", ".po"), 500),
    ("django", "web", (".css", ".js", ".svg", ".html"), 250),
    ("botocore", "services", (".json", ".gz"), 400),
)
_LARGEST = 400_000
ENOUGH = 2000


@dataclass
class Filled:
    """What lies in MEDIA_ROOT at the beginning."""

    #: SHA-256 by name.
    digests: dict[str, str] = field(default_factory=dict)
    size: int = 0
    endings: Counter[str] = field(default_factory=Counter)

    @property
    def kinds(self) -> str:
        """The most frequent endings, with their numbers."""
        return ", ".join(f"{count:,} {ending}" for ending, count in self.endings.most_common(8))


def fill(media_root: str) -> Filled:
    """Copy the files there, as plain ``FileSystemStorage`` would have left them: no note, no stamp, old times."""
    filled = Filled()
    for package, folder, endings, most in _SOURCES:
        for path, name in _found(package, folder, endings, most):
            target = os.path.join(media_root, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(path, target)
            with open(target, "rb") as file:
                filled.digests[name] = hashlib.sha256(file.read()).hexdigest()
            filled.size += os.path.getsize(target)
            filled.endings[os.path.splitext(name)[1]] += 1
    if len(filled.digests) < ENOUGH:
        raise RuntimeError(f"only {len(filled.digests)} files were found in the installed packages")
    return filled


def _found(package: str, folder: str, endings: tuple[str, ...], most: int) -> list[tuple[str, str]]:
    """Paths, each with a name for it. A file that is there twice under one name (icons in three styles) is one."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return []
    root = os.path.dirname(spec.origin)
    names: dict[str, str] = {}
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in {"__pycache__", "node_modules", "js-packages"})
        for file in sorted(files):
            path = os.path.join(directory, file)
            if file.endswith(endings) and 0 < os.path.getsize(path) < _LARGEST:
                names.setdefault(_name(folder, os.path.relpath(path, root)), path)
    # Spread over the whole package, and the same in each run.
    chosen = random.Random(0).sample(sorted(names), min(most, len(names)))
    return [(names[name], name) for name in sorted(chosen)]


def _name(folder: str, path: str) -> str:
    """``conf/locale/de/LC_MESSAGES/django.po`` becomes ``translations/de/django.po`` or the like: not too deep."""
    dull = {"static", "data", "locale", "LC_MESSAGES", "contrib", "conf", "tests", "fontawesomefree", "svgs"}
    return "/".join([folder, *(part for part in path.split(os.sep) if part not in dull)])


def register(database: str, names: list[str]) -> dict[int, str]:
    """A row of the site for each file; the names by id."""
    with sqlite3.connect(database, timeout=20) as connection:
        connection.executemany(
            "INSERT INTO library_document (file, added) VALUES (?, datetime('now', '-' || ? || ' minutes'))",
            [(name, 10 + number % 50_000) for number, name in enumerate(names)],
        )
        return dict(connection.execute("SELECT id, file FROM library_document"))
