"""The calls that are compared."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

from django.core.files.base import ContentFile

from benchmarks.measure import Call

SIZE = 20 * 1024
_FILES = 50
_numbers = itertools.count()


def save_new(storage: Any) -> Call:
    """Save under a name that nobody has."""
    content = os.urandom(SIZE)
    return lambda: storage.save(f"new/{next(_numbers):08d}.jpg", ContentFile(content))


def save_over(storage: Any) -> Call:
    """Save over a file that is there, with a storage that overwrites."""
    content = os.urandom(SIZE)
    names = _filled(storage)
    return lambda: storage.save(next(names), ContentFile(content))


def open_and_read(storage: Any) -> Call:
    """Open a file and read all of it."""
    names = _filled(storage)

    def call() -> None:
        with storage.open(next(names)) as file:
            if len(file.read()) != SIZE:
                raise AssertionError("a file came back short")

    return call


def url(storage: Any) -> Call:
    """The URL of a file, signed."""
    names = _filled(storage)

    def call() -> None:
        if "X-Amz-Signature" not in storage.url(next(names)):
            raise AssertionError("not a signed URL")

    return call


def _filled(storage: Any) -> Iterator[str]:
    names = [storage.save(f"old/{number:04d}.jpg", ContentFile(os.urandom(SIZE))) for number in range(_FILES)]
    return itertools.cycle(names)
