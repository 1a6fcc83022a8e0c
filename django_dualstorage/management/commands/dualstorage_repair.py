"""``manage.py dualstorage_repair``"""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandParser

from django_dualstorage.engine.pool import Stop
from django_dualstorage.exceptions import S3TransientError
from django_dualstorage.management.base import DualStorageCommand, positive
from django_dualstorage.operations.repair import repair
from django_dualstorage.storage import DualWriteStorage


class Command(DualStorageCommand):
    """Parses, calls, prints."""

    help = (
        "Brings to S3 what failed, killed and deferred operations left behind. Names whose requests could still land "
        "wait out the grace period (DUALSTORAGE_GRACE)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of a repair."""
        super().add_arguments(parser)
        parser.add_argument("--watch", action="store_true", help="go on until stopped")
        parser.add_argument(
            "--interval", type=positive, default=10, metavar="S", help="seconds between rounds of --watch"
        )
        parser.add_argument("--workers", type=positive, default=8, metavar="N", help="files at once (default: 8)")
        parser.add_argument("--force", action="store_true", help="lift the brake on deleting many objects from S3")

    def run(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **options: Any) -> int:
        """Repair, once or for ever, and report."""
        while True:
            try:
                code = self._round(storage, stop, as_json=as_json, **options)
            except S3TransientError as error:
                if not options["watch"]:
                    raise
                self.stderr.write(f"{error} Watching on.")
            else:
                if not options["watch"]:
                    return code
            if self._pause(options["interval"], stop):
                return 0

    def _round(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **options: Any) -> int:
        with self.progress("Repairing") as on_result:
            report = repair(storage, stop, on_result, workers=options["workers"], force=options["force"])
        if options["watch"] and not report.files:
            return 0  # nothing to say every few seconds
        lines = [f"{report.files:,} names with hints looked at in {report.seconds:.1f} s."]
        if report.pending:
            lines.append(
                f"{report.pending:,} names must wait: a request of theirs could still land, or S3 gave no clean "
                f"answer. Run it again in {storage.pair.grace / 60:.0f} minutes."
            )
        return self.show(report, as_json, lines)

    def _pause(self, seconds: int, stop: Stop) -> bool:
        """Wait, and say whether to stop."""
        until = time.monotonic() + seconds
        while not stop and time.monotonic() < until:
            time.sleep(0.1)
        return bool(stop)
