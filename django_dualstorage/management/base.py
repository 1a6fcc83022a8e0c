"""What the commands share: the storage, the two ways to print, the exit codes, Ctrl-C."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, storages
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_dualstorage.core.report import Report
from django_dualstorage.engine.pool import Stop
from django_dualstorage.exceptions import ConfigurationError, DualStorageError, PhaseUnknownError, S3Error
from django_dualstorage.management.progress import Count, Progress, printable
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.storage import DualWriteStorage

Parsed = TypeVar("Parsed")

#: Stable: scripts rely on them.
FINE, DIFFERENCES, USAGE, REFUSED, UNUSABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

_SHOWN_PROBLEMS = 10


def positive(text: str) -> int:
    """An argparse type: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return number


def beginning(text: str) -> str:
    """An argparse type: how names relative to MEDIA_ROOT begin."""
    if text.startswith("/") or not {".", ".."}.isdisjoint(text.split("/")):
        raise argparse.ArgumentTypeError(f"{text!r} is not the beginning of a name below MEDIA_ROOT")
    return text


def parsed_by(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """An argparse type from a function that raises ValueError with a sentence for the person who typed."""

    def parsed(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


class DualStorageCommand(BaseCommand):
    """A command on one storage."""

    def add_arguments(self, parser: CommandParser) -> None:
        """The options that every command has."""
        parser.add_argument(
            "--storage", default="default", metavar="ALIAS", help="the key in STORAGES (default: default)"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to stderr")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run :meth:`run` and turn what went wrong into an exit code and a sentence."""
        as_json = options.pop("json")
        stop = Stop(lambda message: self.stderr.write(message))
        try:
            with stop.on_ctrl_c():
                code = self.run(self._storage(options.pop("storage")), stop, as_json=as_json, **options)
        except RefusedError as error:
            raise CommandError(str(error), returncode=REFUSED) from error
        except (S3Error, ConfigurationError, PhaseUnknownError, ImproperlyConfigured, BotoCoreError) as error:
            raise CommandError(str(error), returncode=UNUSABLE) from error
        except (DualStorageError, OSError) as error:
            raise CommandError(str(error), returncode=DIFFERENCES) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped at once. Nothing is half done; run it again.", returncode=INTERRUPTED) from None
        if code:
            sys.exit(code)

    def run(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **options: Any) -> int:
        """What the command does; the exit code."""
        raise NotImplementedError

    def _storage(self, alias: str) -> DualWriteStorage:
        try:
            storage = storages[alias]
        except InvalidStorageError as error:
            raise CommandError(f"STORAGES has no usable {alias!r}: {error}", returncode=USAGE) from error
        if not isinstance(storage, DualWriteStorage):
            raise CommandError(
                f"STORAGES[{alias!r}] is {type(storage).__name__}, not DualWriteStorage. Set its BACKEND to "
                "django_dualstorage.storage.DualWriteStorage, or name another with --storage.",
                returncode=USAGE,
            )
        return storage

    @contextmanager
    def progress(self, what: str, count: Count | None = None) -> Iterator[Progress]:
        """A bar on a terminal, a line every few seconds elsewhere; problems are told as they come. Call what this
        yields with each result. ``count`` counts the files that there are, for the time that is left.
        """
        terminal = self.stderr.isatty()
        progress = Progress(what, self.stderr.write, terminal=terminal, count=count)
        with progress.shown():
            yield progress

    def show(self, report: Report, as_json: bool, lines: list[str]) -> int:
        """Print a report, with ``lines`` below it in the text form; the exit code that it means."""
        if as_json:
            self.stdout.write(json.dumps(report.as_json()))
        else:
            for outcome, count in sorted(report.counts.items()):
                paint = self.style.ERROR if outcome.is_problem else self.style.SUCCESS
                self.stdout.write(paint(f"{count:>10,}  {outcome}"))
            for problem in report.problems[:_SHOWN_PROBLEMS]:
                self.stdout.write(f"  {printable(problem.name)}: {printable(problem.detail)}")
            if report.problem_count > _SHOWN_PROBLEMS:
                self.stdout.write(
                    f"  ... and {report.problem_count - _SHOWN_PROBLEMS:,} more; --json has the first {Report.KEPT:,}."
                )
            for line in lines:
                self.stdout.write(line)
        if report.interrupted:
            return INTERRUPTED
        return DIFFERENCES if report.problem_count or report.out_of_time else FINE
