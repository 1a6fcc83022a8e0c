"""What the commands share: the storage, the two ways to print, the exit codes, Ctrl-C."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, storages
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.db import Error as DatabaseError

from django_dualstorage.core.report import Report
from django_dualstorage.engine.pool import Stop
from django_dualstorage.exceptions import (
    LOOK_AT_S3,
    ConfigurationError,
    DualStorageError,
    PhaseUnknownError,
    S3Error,
)
from django_dualstorage.management.progress import Count, Progress, printable, reaches_stderr
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.storage import DualWriteStorage

Parsed = TypeVar("Parsed")

#: Stable: scripts rely on them.
FINE, DIFFERENCES, USAGE, REFUSED, UNUSABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

_SHOWN_PROBLEMS = 10
_LOOK_AT_S3 = f"\nTo find out more, {LOOK_AT_S3}."

logger = logging.getLogger("django_dualstorage.command")


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


def nothing_begins_with(storage: DualWriteStorage, prefix: str) -> str:
    """What to say of a ``--prefix`` that is probably a slip."""
    return f"Nothing in MEDIA_ROOT {storage.root} or on S3 begins with {prefix!r}. Is it spelt right?"


class DualStorageCommand(BaseCommand):
    """A command on one storage."""

    #: Django's ``--verbosity``.
    verbosity = 1

    def add_arguments(self, parser: CommandParser) -> None:
        """The options that every command has."""
        parser.add_argument(
            "--storage", default="default", metavar="ALIAS", help="the key in STORAGES (default: default)"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to stderr")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run :meth:`run` and turn what went wrong into an exit code and a sentence."""
        as_json = options.pop("json")
        self.verbosity = int(options.get("verbosity", 1))
        stop = Stop(lambda message: self.stderr.write(message))
        try:
            with stop.on_ctrl_c():
                code = self.run(self._storage(options.pop("storage")), stop, as_json=as_json, **options)
        except RefusedError as error:
            raise CommandError(str(error), returncode=REFUSED) from error
        except S3Error as error:
            raise CommandError(f"{error}{_LOOK_AT_S3}", returncode=UNUSABLE) from error
        except BotoCoreError as error:
            raise CommandError(f"S3 cannot be used: {error}{_LOOK_AT_S3}", returncode=UNUSABLE) from error
        except (ConfigurationError, PhaseUnknownError, ImproperlyConfigured) as error:
            raise CommandError(str(error), returncode=UNUSABLE) from error
        except DatabaseError as error:
            raise CommandError(
                f"The database gave an error: {error}. Run the command again when it works; it does only what is left.",
                returncode=DIFFERENCES,
            ) from error
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
                f"STORAGES[{alias!r}] is {type(storage).__name__}, not DualWriteStorage. {_which_are_ours()}",
                returncode=USAGE,
            )
        return storage

    @contextmanager
    def progress(self, what: str, count: Count | None = None) -> Iterator[Progress]:
        """A bar on a terminal, a line every few seconds elsewhere; problems are told as they come. Call what this
        yields with each result. ``count`` counts the files that there are, for the time that is left.
        """
        quiet = self.verbosity == 0
        terminal = self.stderr.isatty() and not quiet
        progress = Progress(what, self.stderr.write, terminal=terminal, count=count, quiet=quiet)
        with progress.shown():
            yield progress

    @contextmanager
    def told_though_ended(self, report: Callable[[], Report], as_json: bool) -> Iterator[None]:
        """Print what was done before an error, which goes on, ended the command."""
        try:
            yield
        except (DualStorageError, DatabaseError, OSError, KeyboardInterrupt) as error:
            done = report()
            if done.files:
                done.error = str(error) or "Stopped at once."
                looked_at = "1 file was" if done.files == 1 else f"{done.files:,} files were"
                last = f"{looked_at} done with before the command ended. Run it again; it does only what is left."
                self.show(done, as_json, [], [last])
            raise

    def show(self, report: Report, as_json: bool, lines: Sequence[str], todo: Sequence[str] = ()) -> int:
        """Print a report, with ``lines`` and what is ``todo`` below it in the text form; the exit code that it means.

        With ``--verbosity 0`` the problems and what is to be done are printed, and nothing if all is fine.
        """
        code = _code_of(report)
        if as_json:
            self.stdout.write(json.dumps(report.as_json()))
        elif self.verbosity or code:
            self._show_text(report, lines if self.verbosity else (), todo)
        return code

    def _show_text(self, report: Report, lines: Sequence[str], todo: Sequence[str]) -> None:
        for outcome, count in sorted(report.counts.items()):
            if self.verbosity or outcome.is_problem:
                paint = self.style.ERROR if outcome.is_problem else self.style.SUCCESS
                self.stdout.write(paint(f"{count:>10,}  {outcome}"))
        if report.problem_count and self._log_is_here():
            self.stdout.write(f"  They are named above; --json has the first {Report.KEPT:,}.")
        else:
            for problem in report.problems[:_SHOWN_PROBLEMS]:
                self.stdout.write(f"  {printable(problem.name)}: {printable(problem.detail)}")
            if report.problem_count > _SHOWN_PROBLEMS:
                self.stdout.write(
                    f"  ... and {report.problem_count - _SHOWN_PROBLEMS:,} more; --json has the first {Report.KEPT:,}."
                )
        for line in (*lines, *todo):
            self.stdout.write(line)

    def _log_is_here(self) -> bool:
        """Whether problems were logged, as they came, to the very terminal, file or pipe that the report goes to."""
        return reaches_stderr() and _same_place(self.stdout, self.stderr)


def _code_of(report: Report) -> int:
    if report.interrupted:
        return INTERRUPTED
    return DIFFERENCES if report.problem_count or report.out_of_time or report.error else FINE


def _same_place(one: OutputWrapper, other: OutputWrapper) -> bool:
    try:
        return os.path.sameopenfile(_descriptor(one), _descriptor(other))
    except (OSError, ValueError, AttributeError):
        return False  # at least one is no file at all


def _which_are_ours() -> str:
    ours = []
    for alias in storages.backends:
        try:
            if isinstance(storages[alias], DualWriteStorage):
                ours.append(repr(alias))
        except Exception as error:  # noqa: BLE001  a site's own storages may raise anything, and it is about others
            logger.debug("STORAGES[%r] cannot be used: %s", alias, error)
    if ours:
        return f"These are: {', '.join(ours)}; name one with --storage."
    return "None is: set the BACKEND of the storage for uploads to django_dualstorage.storage.DualWriteStorage."


def _descriptor(wrapper: Any) -> int:
    # Not the wrapper's own fileno(), which in Django 4.2 is that of a stream that has none.
    return int(wrapper._out.fileno())
