"""``manage.py dualstorage_backfill``"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dualstorage.core.differences import NEXT, Difference, Found
from django_dualstorage.core.quantities import (
    parse_duration,
    parse_since,
    parse_size,
    show_bytes,
    show_count,
    show_duration,
)
from django_dualstorage.core.report import Outcome, Report
from django_dualstorage.core.selection import Rule, Selection, translate
from django_dualstorage.engine.pool import Stop
from django_dualstorage.management.base import (
    USAGE,
    DualStorageCommand,
    beginning,
    nothing_begins_with,
    parsed_by,
    positive,
)
from django_dualstorage.management.progress import printable
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.copying import Belief
from django_dualstorage.operations.engines import MOST_WORKERS, Limits
from django_dualstorage.operations.ordering import Order
from django_dualstorage.operations.preflight import survey
from django_dualstorage.operations.references import referenced_names
from django_dualstorage.storage import DualWriteStorage

_NOT_SURVEYED = (
    "Stopped before the end: what a run would copy is known, but not what on the disk cannot, or perhaps should "
    "not, be moved. Run the command again."
)


class Command(DualStorageCommand):
    """Parses, calls, prints."""

    help = (
        "Copies to S3 every file of MEDIA_ROOT that it lacks, while the site serves traffic. Never touches local "
        "files, never overwrites what the site writes meanwhile; run it again at any time. With --reverse, copies to "
        "MEDIA_ROOT what only S3 has."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of a backfill."""
        super().add_arguments(parser)
        add = parser.add_argument
        add("--dry-run", action="store_true", help="show what would be done, how much it is and how long it may take")
        add("--reverse", action="store_true", help="from S3 to MEDIA_ROOT; never over a newer local file")
        add(
            "--compare",
            type=Belief,
            choices=list(Belief),
            default=Belief.STAMP,
            help="what counts as a copy: the stamp (default), the mere size, or the stamp and the bytes",
        )
        add("--prefix", type=beginning, default="", metavar="NAME", help="only names that begin so, such as avatars/")
        for option, what in (("--include", "only"), ("--exclude", "no")):
            add(
                option,
                action=_AddRule,
                dest="rules",
                default=[],
                metavar="GLOB",
                help=f"{what} names that fit; may be given several times, and the first that fits decides",
            )
        add(
            "--since",
            type=parsed_by(_since),
            metavar="WHEN",
            help="only files modified since a date (2024-05-31), a time (2024-05-31T18:00) or for an age (7d)",
        )
        add("--referenced-only", action="store_true", help="only names that a row of some FileField holds")
        add(
            "--order", type=Order, choices=list(Order), help="which files come first; the comparison is finished before"
        )
        add(
            "--workers",
            type=positive,
            default=MOST_WORKERS,
            metavar="N",
            help="at most so many files at once",
        )
        add(
            "--bandwidth",
            type=parsed_by(parse_size),
            metavar="SIZE",
            help="bytes a second at most, such as 20M or 1.5GiB",
        )
        add("--tps", type=positive, metavar="N", help="requests a second at most")
        add(
            "--max-duration",
            type=parsed_by(parse_duration),
            metavar="TIME",
            help="begin nothing new after this time, such as 90s, 30m or 1h30m",
        )

    def run(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **options: Any) -> int:
        """Back-fill and report."""
        dry_run, belief, order = options["dry_run"], Belief(options["compare"]), options["order"]
        names = referenced_names(storage) if options["referenced_only"] else None
        selection = Selection(tuple(options["rules"]), options["since"], names)
        try:
            backfill = Backfill(
                storage,
                prefix=options["prefix"],
                workers=options["workers"],
                dry_run=dry_run,
                reverse=options["reverse"],
                compare=belief,
                selection=selection,
                order=None if order is None else Order(order),
                limits=Limits(options["bandwidth"], options["tps"], options["max_duration"]),
            )
        except ValueError as error:
            raise CommandError(str(error), returncode=USAGE) from error
        what = "Examining" if dry_run else "Copying"
        with self.told_though_ended(lambda: backfill.report, as_json), self.progress(what, backfill.count) as progress:
            report = backfill.run(stop, progress, progress.counted)
        lines = [*(_plan(report) if dry_run else _done(report)), *_left(report)]
        if dry_run and not options["reverse"] and not report.interrupted:
            # The names were read by the run; they are not kept, for there may be millions.
            again = replace(selection, names=None if names is None else referenced_names(storage))
            with self.told_though_ended(lambda: report, as_json):
                lines += _preflight(report, survey(storage, stop, prefix=options["prefix"], selection=again))
            if stop:
                report.interrupted, report.error = True, _NOT_SURVEYED
        if report.interrupted and progress.meter.total is not None:
            report.left = max(0, progress.meter.total - report.files)
        elif not report.interrupted and options["prefix"] and backfill.found_nothing:
            report.error = nothing_begins_with(storage, options["prefix"])
        return self.show(report, as_json, lines, [self._todo(report, backfill, belief, storage)])

    def _todo(self, report: Report, backfill: Backfill, belief: Belief, storage: DualWriteStorage) -> str:
        """What a run has come to, and what to do next."""
        if report.interrupted and report.error:
            return report.error
        if report.interrupted:
            left = "" if report.left is None else f", about {report.left:,} are left"
            return (
                f"Stopped before the end: {show_count(report.files, 'file')} done{left}. Run the command again; "
                "it does only what is left."
            )
        if report.error:
            return report.error
        if not report.files and not report.local_only:
            if not backfill.is_all:
                return "No file is what was asked for, so there was nothing to do."
            return f"There are no files in {storage.root}. If there should be, is its volume mounted?"
        if report.out_of_time:
            mend = "Mend what is named above. " if report.problem_count else ""
            return f"{mend}Run the command again; it does only what is left."
        if report.dry_run:
            return _what_a_run_would(report, backfill)
        if not report.complete:
            return "Mend what is named above and run the command again; it does only what is left."
        return self.style.SUCCESS(_verdict(backfill.reverse, belief, whole=backfill.is_whole))


class _AddRule(argparse.Action):
    """``--include`` and ``--exclude`` in the order in which they were given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        rule = Rule((option_string or "").startswith("--i"), str(values))
        try:
            translate(rule.glob)
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), rule])


def _since(text: str) -> int:
    return parse_since(text, datetime.now().astimezone())


def _plan(report: Report) -> list[str]:
    moved = sum(report.counts[outcome] for outcome in Outcome if outcome.moves_bytes)
    size = show_bytes(report.bytes_moved)
    lines = [f"{show_count(report.files, 'file')} looked at, nothing changed."]
    if moved:
        lines.append(f"A run would copy {show_count(moved, 'file')}, {size}.")
    if report.estimate is not None:
        lines.append(f"At the speed of the last run that takes about {show_duration(report.estimate)}.")
    elif moved:
        lines.append("How long that takes nobody knows yet; a run with --max-duration 1m finds out while it copies.")
    return lines


def _what_a_run_would(report: Report, backfill: Backfill) -> str:
    if any(report.counts[outcome] for outcome in Outcome if outcome.moves_bytes or outcome.changes_s3):
        mend = "Mend what is named above first, or leave it out with --exclude. " if report.problem_count else ""
        return (
            f"{mend}Run it without --dry-run to copy. Whether S3 takes what it is sent was not tried; "
            "manage.py check --deploy --database default tries it."
        )
    if report.problem_count:
        return "There is nothing to copy but what is named above: mend that."
    noted = " A run without --dry-run notes that the copy is complete." if backfill.is_whole else ""
    return f"There is nothing to copy.{noted}"


def _preflight(report: Report, found: Iterable[tuple[Difference, int, list[Found]]]) -> list[str]:
    """What the disk has that cannot, or perhaps should not, be moved; noted in the report, too."""
    lines = []
    for kind, count, first in found:
        report.preflight[kind.value] = count
        lines.append(
            f"{count:,} {kind}: {NEXT[kind]}. First of them: {', '.join(printable(one.name) for one in first)}"
        )
    return lines


def _done(report: Report) -> list[str]:
    files = show_count(report.files, "file")
    lines = [f"{files} in {report.seconds:.1f} s, {report.bytes_moved / 1e6:,.1f} MB copied."]
    lines.append(f"The engine was {report.engine}.")
    if report.out_of_time:
        lines.append("The time of --max-duration was over before everything was looked at.")
    return lines


def _left(report: Report) -> list[str]:
    lines = []
    if report.s3_only:
        found = show_count(report.s3_only, "object")
        lines.append(f"{found} on S3 without a local file: left alone, and --json has the names.")
    if report.local_only:
        lines.append(f"{show_count(report.local_only, 'local file')} not on S3: left alone.")
    if report.pending:
        lines.append(f"{show_count(report.pending, 'name')} to be looked at by manage.py dualstorage_repair.")
    return lines


def _verdict(reverse: bool, belief: Belief, *, whole: bool) -> str:
    """What a run without problems has shown, and no more than that."""
    if reverse:
        return "The disk has every file that S3 has there."
    if belief is Belief.SIZE:
        return "S3 has an object of the right size for every file there; whether it is the right one was not asked."
    return "Every file is on S3." if whole else "Every file there is on S3."
