"""``manage.py dualstorage_repair``"""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.management.base import CommandParser

from django_dualstorage.core.quantities import show_count
from django_dualstorage.core.report import FileResult, Outcome, Report
from django_dualstorage.engine.pool import Stop
from django_dualstorage.exceptions import S3TransientError
from django_dualstorage.management.base import FINE, DualStorageCommand, positive
from django_dualstorage.management.progress import printable
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
        how = {"workers": options["workers"], "force": options["force"]}
        if not options["watch"]:
            return self._once(storage, stop, as_json=as_json, **how)
        watched = _Watched()
        while True:
            self._round(storage, stop, watched, as_json=as_json, **how)
            if self._pause(options["interval"], stop):
                return FINE

    def _once(self, storage: DualWriteStorage, stop: Stop, *, as_json: bool, **how: Any) -> int:
        report = Report()
        with self.told_though_ended(lambda: report, as_json), self.progress("Repairing") as on_result:
            repair(storage, stop, on_result, report=report, **how)
        if not report.files and not stop:
            return self.show(report, as_json, ["There is nothing to repair."])
        lines = [f"{show_count(report.files, 'name')} with hints looked at in {report.seconds:.1f} s."]
        todo = []
        if report.interrupted:
            todo.append(
                f"Stopped before the end: {show_count(report.files, 'name')} done, {report.left or 0:,} left. Run the "
                "command again; it does only what is left."
            )
        elif report.problem_count:
            todo.append("Mend what is named above and run the command again.")
        elif report.pending:
            lines.append(
                f"{show_count(report.pending, 'name')} must wait: a request could still land, or S3 gave no clean "
                f"answer. Run it again in {storage.pair.grace / 60:.0f} minutes."
            )
        return self.show(report, as_json, lines, todo)

    def _round(self, storage: DualWriteStorage, stop: Stop, watched: _Watched, *, as_json: bool, **how: Any) -> None:
        """Work through the hints, and say what has changed since the round before."""
        report = Report()
        try:
            with self.progress("Repairing") as progress:

                def on_result(result: FileResult) -> None:
                    if not watched.knows(result):
                        progress(result)

                repair(storage, stop, on_result, report=report, **how)
        except S3TransientError as error:
            report.error = str(error)
        news = watched.news(report)
        if as_json and news:
            self.stdout.write(json.dumps(report.as_json()))
        elif self.verbosity or report.problem_count:
            for line in news:
                self.stdout.write(line)

    def _pause(self, seconds: int, stop: Stop) -> bool:
        """Wait, and say whether to stop."""
        until = time.monotonic() + seconds
        with stop.idle():
            while not stop and time.monotonic() < until:
                time.sleep(0.1)
        return bool(stop)


class _Watched:
    """What the rounds of ``--watch`` have said already. Most rounds find what the one before has found."""

    def __init__(self) -> None:
        self._problems: set[tuple[str, str]] = set()
        self._pending = 0
        self._error = ""

    def knows(self, result: FileResult) -> bool:
        """Whether it is a problem that was told already."""
        return (result.name, result.detail) in self._problems

    def news(self, report: Report) -> list[str]:
        """What is worth a line after a round, and perhaps another of an error; nothing for the same as before."""
        problems = {(problem.name, problem.detail) for problem in report.problems}
        done = {outcome: report.counts[outcome] for outcome in Outcome if _is_work(outcome) and report.counts[outcome]}
        lines = []
        if done or report.pending != self._pending or problems != self._problems:
            counts = [f"{count:,} {outcome}" for outcome, count in done.items()]
            counts += [f"{show_count(report.problem_count, 'problem')}"] if problems else []
            counts += [f"{show_count(report.pending, 'name')} waiting"] if report.pending else []
            lines.append(", ".join(counts) or "No name waits any more.")
        if report.error != self._error:
            lines.append(f"{printable(report.error)} Watching on." if report.error else "S3 can be used again.")
        if not report.error:  # else nobody knows what else there is
            self._problems, self._pending = problems, report.pending
        self._error = report.error
        return lines


def _is_work(outcome: Outcome) -> bool:
    return outcome not in {Outcome.CERTIFIED, Outcome.NOTHING} and not outcome.is_problem
