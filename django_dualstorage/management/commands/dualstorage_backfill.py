"""``manage.py dualstorage_backfill``"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_dualstorage.engine.pool import Stop
from django_dualstorage.management.base import DualStorageCommand, beginning, positive
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.storage import DualWriteStorage


class Command(DualStorageCommand):
    """Parses, calls, prints."""

    help = (
        "Copies to S3 every file of MEDIA_ROOT that it lacks, while the site serves traffic. Never touches local "
        "files, never overwrites what the site writes meanwhile; run it again at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of a backfill."""
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
        parser.add_argument(
            "--prefix", type=beginning, default="", metavar="NAME", help="only names that begin so, such as avatars/"
        )
        parser.add_argument("--workers", type=positive, default=16, metavar="N", help="files at once (default: 16)")

    def run(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **options: Any) -> int:
        """Back-fill and report."""
        dry_run = options["dry_run"]
        backfill = Backfill(storage, prefix=options["prefix"], workers=options["workers"], dry_run=dry_run)
        with self.progress("Examining" if dry_run else "Copying") as on_result:
            report = backfill.run(stop, on_result)
        lines = [f"{report.files:,} files in {report.seconds:.1f} s, {report.bytes_moved / 1e6:,.1f} MB copied."]
        if dry_run:
            lines = [f"{report.files:,} files looked at, nothing changed. Run it without --dry-run to copy."]
        if report.s3_only:
            lines.append(
                f"{report.s3_only:,} objects on S3 belong to no local file; they are left alone, and --json names them."
            )
        if report.pending:
            lines.append(f"{report.pending:,} names wait for manage.py dualstorage_repair.")
        if not report.files:
            lines.append(f"There are no files in {storage.root}. If there should be, is its volume mounted?")
        elif report.complete and not dry_run:
            lines.append(
                self.style.SUCCESS("Every file is on S3." if not options["prefix"] else "Every file there is on S3.")
            )
        elif not dry_run:
            lines.append("Mend what is named above and run the command again; it does only what is left.")
        return self.show(report, as_json, lines)
