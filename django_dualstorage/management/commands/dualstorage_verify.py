"""``manage.py dualstorage_verify``"""

from __future__ import annotations

import argparse
import json
import re
import secrets
from collections import Counter
from contextlib import closing
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dualstorage.core.differences import MENDED_BY_FIX, NEXT
from django_dualstorage.core.quantities import parse_size, show_count
from django_dualstorage.core.report import Outcome
from django_dualstorage.engine.pool import Stop
from django_dualstorage.exceptions import S3Error
from django_dualstorage.management.base import (
    DIFFERENCES,
    FINE,
    INTERRUPTED,
    USAGE,
    DualStorageCommand,
    beginning,
    nothing_begins_with,
    parsed_by,
    positive,
)
from django_dualstorage.management.progress import printable
from django_dualstorage.operations.engines import MOST_WORKERS, Limits
from django_dualstorage.operations.verify import Verification, Verify, Wanted
from django_dualstorage.storage import DualWriteStorage

_SHOWN = 3


def share(text: str) -> float:
    """An argparse type: ``5%`` or ``0.05``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", text)
    number = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a share, such as 5% or 0.05, of more than none and at most all"
        )
    return number


def seed(text: str) -> int:
    """An argparse type: a whole number that fits into 64 bits."""
    number = int(text)
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 2^64 - 1")
    return number


class Command(DualStorageCommand):
    """Parses, calls, prints."""

    help = (
        "Compares MEDIA_ROOT, S3 and the FileFields of the database, and says what is wrong and what to type next. "
        "Changes nothing without --fix."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of a verification."""
        super().add_arguments(parser)
        parser.add_argument(
            "--prefix", type=beginning, default="", metavar="NAME", help="only names that begin so, such as avatars/"
        )
        parser.add_argument("--deep", action="store_true", help="read the bytes of both sides and compare them")
        parser.add_argument(
            "--sample", type=share, default=None, metavar="SHARE", help="with --deep: read a share only, such as 5%%"
        )
        parser.add_argument(
            "--seed", type=seed, default=None, metavar="N", help="which sample; the one that a run before has printed"
        )
        parser.add_argument(
            "--anonymous", action="store_true", help="ask without credentials, too: that must be refused"
        )
        parser.add_argument("--no-database", action="store_true", help="do not compare with the rows of FileFields")
        parser.add_argument("--fix", action="store_true", help="do what backfill and repair would do about it")
        parser.add_argument(
            "--bandwidth", type=parsed_by(parse_size), metavar="SIZE", help="bytes a second at most, such as 20M"
        )
        parser.add_argument("--tps", type=positive, metavar="N", help="requests a second at most")
        parser.add_argument(
            "--workers",
            type=positive,
            default=MOST_WORKERS,
            metavar="N",
            help="at most so many files at once",
        )

    def run(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **options: Any) -> int:
        """Verify and report."""
        if options["sample"] is not None and not options["deep"]:
            raise CommandError("--sample says how much --deep reads: give both.", returncode=USAGE)
        wanted = Wanted(
            prefix=options["prefix"],
            database=not options["no_database"],
            deep=options["deep"],
            sample=options["sample"] or 1.0,
            seed=secrets.randbits(32) if options["seed"] is None else options["seed"],
            anonymous=options["anonymous"],
            fix=options["fix"],
            workers=options["workers"],
        )
        limits = Limits(options["bandwidth"], options["tps"])
        with self.progress("Verifying") as progress:
            verify = Verify(storage, wanted, limits=limits, tell=self.stderr.write if self.verbosity else _ignore)
            try:
                result = verify.run(stop, progress)
            except (S3Error, OSError, KeyboardInterrupt):
                if progress.meter.files and not as_json:
                    self._print_what_was_fixed(verify.fixed)
                    self.stdout.write(f"{show_count(progress.meter.files, 'file')} looked at before the command ended.")
                raise
        with closing(result):
            if wanted.prefix and not (result.files or result.objects or result.counts or result.interrupted):
                result.error = nothing_begins_with(storage, wanted.prefix)
            wrong = result.problems or result.error or result.busy or result.unread
            code = INTERRUPTED if result.interrupted else DIFFERENCES if wrong else FINE
            if as_json:
                self._print_json(result)
            elif self.verbosity or code:
                self._print_text(result, fine=code == FINE)
            return code

    def _print_json(self, result: Verification) -> None:
        """One object, written as it is read from the disk: there may be millions of findings."""
        head = json.dumps(result.as_json())
        self.stdout.write(head[:-1] + ', "discrepancies": [', ending="")
        between = ""
        for found in result.found():
            row = {"kind": found.kind.value, "name": found.name, "side": found.side.value, "detail": found.detail}
            self.stdout.write(between + json.dumps(row), ending="")
            between = ", "
        self.stdout.write("]}")

    def _print_text(self, result: Verification, *, fine: bool) -> None:
        write = self.stdout.write
        wanted = result.wanted
        counts = {kind: count for kind, count in result.counts.items() if self.verbosity or kind.is_problem}
        if self.verbosity:
            write(f"{_both(result)} compared in {result.seconds:.1f} s.")
            if wanted.deep:
                of = f" of a sample of {wanted.sample:.4g} (--seed {wanted.seed})" if wanted.sample < 1 else ""
                read = show_count(result.files_read, "file")
                write(f"{read}{of} read on both sides, {result.bytes_read / 1e6:,.1f} MB each.")
        for kind, count in counts.items():
            paint = self.style.ERROR if kind.is_problem else self.style.WARNING
            write(paint(f"{count:>10,}  {kind}"))
        for kind, count in counts.items():
            write("")
            write(self.style.MIGRATE_HEADING(f"{kind}: {NEXT[kind]}"))
            for found in result.found(kind, _SHOWN):
                write(f"  {printable(found.name) or '(the bucket)'}: {printable(found.detail)}")
            if count > _SHOWN:
                write(f"  ... and {count - _SHOWN:,} more; --json has all.")
        if counts:
            write("")
        self._print_what_was_fixed(result.fixed)
        if result.busy:
            write(
                f"{show_count(result.busy, 'name')} written to all the time and not judged. Run the command again when "
                "less is written."
            )
        if result.unread:
            models = ", ".join(map(printable, sorted(result.unread)))
            write(
                f"The rows of {models} could not be read and were not judged. "
                "Have them readable, or leave all rows out with --no-database, and run the command again."
            )
        for remark in result.remarks if self.verbosity else ():
            write(printable(remark))
        if result.error:
            write(printable(result.error))
        if result.run_id is not None and self.verbosity:
            write(f"Kept as run {result.run_id}.")
        if result.interrupted:
            write("Stopped before the end: what was not reached is not in these figures. Run the command again.")
        elif fine:
            write(self.style.SUCCESS("Nothing is wrong." if not wanted.prefix else "Nothing is wrong there."))
        elif not result.problems and not result.error:
            write(self.style.WARNING("Nothing is wrong with what was judged, which is not everything."))
        elif not wanted.fix and MENDED_BY_FIX & result.counts.keys():
            write("manage.py dualstorage_verify --fix does what backfill and repair would do about these.")

    def _print_what_was_fixed(self, fixed: Counter[Outcome]) -> None:
        for outcome, count in sorted(fixed.items()):
            self.stdout.write(f"{count:>10,}  {outcome} by --fix")


def _both(result: Verification) -> str:
    return f"{show_count(result.files, 'file')} and {show_count(result.objects, 'object')}"


def _ignore(sentence: str) -> None:
    """With --verbosity 0."""
