"""What the commands share: the storage, the two ways to print, the exit codes, Ctrl-C."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, storages
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from django_dualstorage.core.report import FileResult, Report
from django_dualstorage.engine.pool import Stop
from django_dualstorage.exceptions import ConfigurationError, DualStorageError, PhaseUnknownError, S3Error
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.storage import DualWriteStorage

logger = logging.getLogger("django_dualstorage.command")

#: Stable: scripts rely on them.
FINE, DIFFERENCES, USAGE, REFUSED, UNUSABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

_LINE_EVERY = 10.0
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


def printable(text: str) -> str:
    """A file may have any name, also one that would write to the terminal or add lines to a log."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


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
    def progress(self, what: str, report: Callable[[], str] | None = None) -> Iterator[Callable[[FileResult], None]]:
        """A bar on a terminal, a line every few seconds elsewhere; problems are told as they come."""
        terminal = self.stderr.isatty()
        with tqdm(desc=what, unit=" files", file=sys.stderr, disable=not terminal, leave=False) as bar:
            count = 0
            told = time.monotonic()

            def on_result(result: FileResult) -> None:
                nonlocal count, told
                count += 1
                bar.update()
                if result.outcome.is_problem:
                    logger.warning("%s: %s: %s", printable(result.name), result.outcome, printable(result.detail))
                if not terminal and time.monotonic() - told >= _LINE_EVERY:
                    told = time.monotonic()
                    self.stderr.write(f"{what}: {count} files so far")

            yield on_result

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
        return DIFFERENCES if report.problem_count else FINE
