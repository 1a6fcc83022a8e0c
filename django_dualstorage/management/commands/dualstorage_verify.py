"""``manage.py dualstorage_verify``"""

from __future__ import annotations

import argparse
import json
import re
import secrets
from contextlib import closing
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_dualstorage.core.differences import MENDED_BY_FIX, NEXT
from django_dualstorage.core.quantities import parse_size
from django_dualstorage.engine.pool import Stop
from django_dualstorage.management.base import (
    DIFFERENCES,
    FINE,
    INTERRUPTED,
    USAGE,
    DualStorageCommand,
    beginning,
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
        with self.progress("Verifying") as on_result:
            limits = Limits(options["bandwidth"], options["tps"])
            result = Verify(storage, wanted, limits=limits, tell=self.stderr.write).run(stop, on_result)
        with closing(result):
            if as_json:
                self._print_json(result)
            else:
                self._print_text(result)
            if result.interrupted:
                return INTERRUPTED
            return DIFFERENCES if result.problems else FINE

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

    def _print_text(self, result: Verification) -> None:
        write = self.stdout.write
        wanted = result.wanted
        write(f"{result.files:,} files and {result.objects:,} objects compared in {result.seconds:.1f} s.")
        if wanted.deep:
            of = f" of a sample of {wanted.sample:.4g} (--seed {wanted.seed})" if wanted.sample < 1 else ""
            write(f"{result.files_read:,} files{of} read on both sides, {result.bytes_read / 1e6:,.1f} MB each.")
        for kind, count in result.counts.items():
            paint = self.style.ERROR if kind.is_problem else self.style.WARNING
            write(paint(f"{count:>10,}  {kind}"))
        for kind, count in result.counts.items():
            write("")
            write(self.style.MIGRATE_HEADING(f"{kind}: {NEXT[kind]}"))
            for found in result.found(kind, _SHOWN):
                write(f"  {printable(found.name) or '(the bucket)'}: {printable(found.detail)}")
            if count > _SHOWN:
                write(f"  ... and {count - _SHOWN:,} more; --json has all.")
        if result.counts:
            write("")
        for outcome, count in sorted(result.fixed.items()):
            write(f"{count:>10,}  {outcome} by --fix")
        if result.busy:
            write(f"{result.busy:,} names were being written and are not judged.")
        for remark in result.remarks:
            write(printable(remark))
        if result.run_id is not None:
            write(f"Kept as run {result.run_id}.")
        if result.interrupted:
            write("Stopped before the end: what was not reached is not in these figures.")
        elif not result.problems:
            write(self.style.SUCCESS("Nothing is wrong." if not wanted.prefix else "Nothing is wrong there."))
        elif not wanted.fix and MENDED_BY_FIX & result.counts.keys():
            write("manage.py dualstorage_verify --fix does what backfill and repair would do about these.")
