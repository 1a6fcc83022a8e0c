"""The movers that are a Django site: ours, and the loop that guides recommend."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.backfill.bars import OURS
from benchmarks.backfill.movers import AwsSync, Job, Mover, Rclone, S5cmd, Setting
from benchmarks.backfill.workloads import Workload
from django_dualstorage.core.names import JOURNAL_DIR

_CHECKOUT = str(Path(__file__).parents[2])


class _DjangoMover(Mover):
    def environment(self, job: Job) -> dict[str, str]:
        """What ``benchmarks.backfill.settings`` reads."""
        return super().environment(job) | {
            "PYTHONPATH": _CHECKOUT,
            "DJANGO_SETTINGS_MODULE": "benchmarks.backfill.settings",
            "BENCH_MEDIA": str(job.folder),
            "BENCH_DATABASE": str(job.scratch / "db.sqlite3"),
            "BENCH_ENDPOINT": job.target.endpoint_url,
            "BENCH_BUCKET": job.bucket,
        }


class Ours(_DjangoMover):
    """``manage.py dualstorage_backfill``, as a site would run it, with a database and a journal."""

    name = OURS

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = tuple(options)

    def settings(self, workload: Workload) -> tuple[Setting, ...]:
        """Nothing is tried for ours: it has to find out by itself."""
        return (Setting(self._options),)

    def command(self, job: Job, setting: Setting) -> list[str]:
        """The command in a process of its own, start of Python and Django included."""
        return [sys.executable, "-m", "django", "dualstorage_backfill", *setting.options]

    @contextmanager
    def ready(self, job: Job) -> Iterator[None]:
        """A migrated database; below the files the journal, which the other movers must not find and copy.

        A site that has not run a backfill yet, or, where all is there already, the site that has put it there.
        """
        journal, kept = job.folder / JOURNAL_DIR, job.scratch / "journal"
        database, migrated = job.scratch / "db.sqlite3", job.scratch / "migrated.sqlite3"
        if not migrated.exists():
            self._migrate(job)
            database.rename(migrated)
        if job.workload.is_there and kept.exists():
            shutil.move(kept, journal)
        else:
            shutil.copy(migrated, database)
        try:
            yield
        finally:
            if job.workload.is_there and journal.exists():
                shutil.move(journal, kept)
            else:
                shutil.rmtree(journal, ignore_errors=True)

    def _migrate(self, job: Job) -> None:
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--verbosity=0", "--skip-checks"],
            env=self.environment(job),
            check=True,
        )


class GuidesLoop(_DjangoMover):
    """``os.walk``, ``exists()``, ``save()``: what guides to moving media files recommend."""

    name = "guide"
    is_slow = True

    def command(self, job: Job, setting: Setting) -> list[str]:
        """The loop in a process of its own."""
        return [sys.executable, "-m", "benchmarks.backfill.guides_loop"]

    def environment(self, job: Job) -> dict[str, str]:
        """The same site with django-storages' backend."""
        return super().environment(job) | {"BENCH_BACKEND": "storages.backends.s3.S3Storage"}


def all_movers(our_options: Sequence[str] = ()) -> tuple[Mover, ...]:
    """Every one, ours first."""
    return (Ours(our_options), S5cmd(), Rclone(), AwsSync(), GuidesLoop())
