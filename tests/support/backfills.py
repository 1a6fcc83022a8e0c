"""Running a backfill on files that were written behind the storage's back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django_dualstorage.core.report import FileResult, Report
from django_dualstorage.engine.pool import Stop
from django_dualstorage.engine.retry import Patience
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import ignore, never_stop


def write(storage: DualWriteStorage, name: str, content: bytes = b"content", mtime: int = 1_000_000_000) -> Path:
    """Write a file behind the storage's back, long ago."""
    path = Path(storage.location, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(mtime, mtime))
    return path


def run(
    storage: DualWriteStorage,
    prefix: str = "",
    on_result: Callable[[FileResult], None] = ignore,
    stop: Stop | None = None,
    on_counted: Callable[[int, int], None] = lambda files, size: None,
    **options: Any,
) -> Report:
    """Backfill what begins with ``prefix``."""
    # Tests of errors have no time for patience unless they ask for it.
    options = {"workers": 4, "patience": Patience(attempts=1), **options}
    return Backfill(storage, prefix=prefix, **options).run(
        never_stop() if stop is None else stop, on_result, on_counted
    )


def counts(report: Report) -> dict[str, int]:
    """How many files had which outcome."""
    return {outcome.value: count for outcome, count in report.counts.items()}
