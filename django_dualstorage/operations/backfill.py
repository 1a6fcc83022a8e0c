"""Backfill: bring to one side what it lacks of the other, while the site serves traffic."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple

from django_dualstorage import records
from django_dualstorage.core.objects import ListedObject, bare_etag
from django_dualstorage.core.phases import Policy
from django_dualstorage.core.report import FileResult, Outcome, Report
from django_dualstorage.core.selection import EVERYTHING, Selection
from django_dualstorage.engine.choice import Choice
from django_dualstorage.engine.pool import Pool, Stop
from django_dualstorage.engine.retry import Patience
from django_dualstorage.inventory import Certified, Inventory, Speed
from django_dualstorage.journal import HintedNames
from django_dualstorage.operations.comparison import Batch, Compared, Comparison, inventory_of
from django_dualstorage.operations.copying import Belief, Copying
from django_dualstorage.operations.engines import MOST_WORKERS, Limits, pace_for_command, pair_for_command
from django_dualstorage.operations.gate import (
    RefusedError,
    S3Watch,
    demand_deletions_reach_s3,
    demand_local_truth,
    demand_same_volume,
)
from django_dualstorage.operations.ordering import Order, ordered
from django_dualstorage.operations.probe import probe
from django_dualstorage.records import RunNote, noted_run
from django_dualstorage.sides.walk import Version, walk_versions
from django_dualstorage.storage import DualWriteStorage
from django_dualstorage.wiring import DEFAULT_ALIAS

logger = logging.getLogger("django_dualstorage.backfill")

#: The outcomes after which S3 is known to have the version that the result names.
_LEARNED: Final = frozenset(
    {Outcome.CERTIFIED, Outcome.UPLOADED, Outcome.REPLACED, Outcome.ADOPTED, Outcome.BROUGHT_HOME}
)
#: What a killed run has learned and not noted is asked for again: at most so many files, or seconds of work.
_NOTE_FILES: Final = 1000
_NOTE_SECONDS: Final = 5.0
#: A run that has moved fewer files says nothing of how long another takes.
_ENOUGH_FOR_SPEED: Final = 20


class Counted(NamedTuple):
    """Names about which there was nothing to ask."""

    outcomes: dict[Outcome, int]
    bytes: int = 0
    s3_only: tuple[str, ...] = ()
    local_only: int = 0

    @property
    def files(self) -> int:
        """Files among them."""
        return sum(self.outcomes.values())


class _EndedError(Exception):
    """The person has asked to stop, or the time is over, while the bucket was listed."""


def _ignore_count(files: int, size: int) -> None:
    """Nobody listens."""


class Backfill:
    """One run over the tree of one storage."""

    def __init__(
        self,
        storage: DualWriteStorage,
        *,
        prefix: str = "",
        workers: int = MOST_WORKERS,
        dry_run: bool = False,
        reverse: bool = False,
        compare: Belief = Belief.STAMP,
        selection: Selection = EVERYTHING,
        order: Order | None = None,
        limits: Limits | None = None,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``reverse``: from S3 to the disk. ``selection``'s names are read once. Without ``order`` copying begins
        before everything has been compared. Raises ValueError for options that do not go together.
        """
        if reverse and compare is Belief.HASH:
            raise ValueError("Bytes are compared on the way to S3 only; leave --compare hash or --reverse out.")
        if reverse and (selection.since_ns is not None or (order is not None and order.by_age)):
            raise ValueError(
                "What only S3 has, has no modification time on the disk to go by; leave --since, or --order newest or "
                "oldest, or --reverse out."
            )
        self._storage = storage
        self._limits = limits or Limits()
        self._patience = patience or Patience()
        self._pair = storage.pair
        self._watch = S3Watch(storage.pair)
        self._prefix = prefix
        self._workers = workers
        self._dry_run = dry_run
        self._reverse = reverse
        self._belief = compare
        self._selection = selection
        self._order = order
        self._clock = clock
        self._late = False
        #: Which engine carries the bytes, once the run has begun.
        self.engine = ""
        #: What was done so far; whole when :meth:`run` has returned it.
        self.report = Report(dry_run=dry_run)

    @property
    def reverse(self) -> bool:
        """Whether it goes from S3 to the disk."""
        return self._reverse

    @property
    def is_all(self) -> bool:
        """Whether no file is left out by an option."""
        return not self._prefix and self._selection.is_everything

    @property
    def found_nothing(self) -> bool:
        """Whether neither side has any name that begins with the prefix, as far as the run could see."""
        report = self.report
        if report.files or report.local_only or report.s3_only:
            return False
        return next(walk_versions(self._storage.root, self._prefix), None) is None

    @property
    def is_whole(self) -> bool:
        """Whether a complete run means that S3 has every file in its very version."""
        return self.is_all and not self._reverse and self._belief is not Belief.SIZE

    def run(
        self,
        stop: Stop,
        on_result: Callable[[FileResult], None],
        on_counted: Callable[[int, int], None] = _ignore_count,
    ) -> Report:
        """Look at every file and copy what the other side lacks; the report of it.

        ``on_result`` hears of each file that something was asked or done about, ``on_counted`` of how many others
        there were, and their bytes. Running it again does only what is left. Raises RefusedError, S3Error if S3 cannot
        be used at all, JournalError, SpoolError, FileNotFoundError if MEDIA_ROOT is not there.
        """
        if self._dry_run:
            return self._run(stop, on_result, on_counted, RunNote(None))
        with noted_run(self._storage.alias, "backfill", self._parameters()) as note:
            report = self._run(stop, on_result, on_counted, note)
            found = report.as_json()
            # The row is to be small; what is left out here was logged.
            found.update(s3_only_names=[], problems=found["problems"][:100])
            note.end(found, report.counts, report.bytes_moved, interrupted=report.interrupted)
        return report

    def _parameters(self) -> dict[str, Any]:
        rules = [f"{'include' if rule.include else 'exclude'} {rule.glob}" for rule in self._selection.rules]
        return {
            "prefix": self._prefix,
            "reverse": self._reverse,
            "compare": str(self._belief.value),
            "rules": rules,
            "whole": self.is_whole,
        }

    def _run(
        self,
        stop: Stop,
        on_result: Callable[[FileResult], None],
        on_counted: Callable[[int, int], None],
        note: RunNote,
    ) -> Report:
        self._demand_sense()
        demand_same_volume(self._storage)
        if self.is_whole:
            records.demand_tables()
        started = time.monotonic()
        deadline = None if self._limits.duration is None else started + self._limits.duration
        report = self.report = Report(dry_run=self._dry_run)
        pace = pace_for_command(self._workers, self._limits, stop=lambda: bool(stop))
        self._pair = pair_for_command(
            self._storage.pair,
            pace=pace,
            stop=lambda: bool(stop),
            on_choice=self._chosen,
            patience=self._patience,
        )
        report.engine = self.engine
        if not self._dry_run and not self._reverse and not self._pair.s3.honours_conditions:
            probe(self._pair)
        inventory = inventory_of(self._pair)
        learned = _Learned(None if self._dry_run else inventory)
        try:
            with closing(self._comparison(inventory, stop, deadline)) as comparison:
                hinted = self._pair.journal.hinted_names()
                copying = Copying(self._pair, self._belief, hinted, self._clock, pace)
                pool = Pool(self._work(copying), self._workers, stop, pace.limit)
                todo = self._todo(comparison, hinted)
                with closing(pool.run(self._until(deadline, todo))) as results:
                    for result in results:
                        if isinstance(result, Counted):
                            _count(report, result)
                            on_counted(result.files, result.bytes)
                        else:
                            report.add(result)
                            learned.add(result)
                            on_result(result)
                            self._watch.hear(result)
                        note.beat(report.counts, report.bytes_moved)
                self._demand_files(report, comparison, stop)
        except _EndedError:
            pass
        finally:
            learned.note()
        report.interrupted = bool(stop)
        report.out_of_time = self._late
        report.seconds = time.monotonic() - started
        self._remember(report, inventory)
        return report

    def count(self, ended: Callable[[], bool]) -> int | None:
        """How many files a run looks at; None if that is not known before its end, or once ``ended()`` is true."""
        if self._reverse or self._selection.names is not None:
            return None
        files = 0
        takes, since = self._selection.takes_name, self._selection.since_ns
        for seen, found in enumerate(walk_versions(self._storage.root, self._prefix)):
            if not seen % 1000 and ended():
                return None
            if since is not None and isinstance(found, Version) and found.mtime_ns < since:
                continue
            files += takes(found.name)
        return files

    def _chosen(self, choice: Choice) -> None:
        self.engine = str(choice)
        logger.info("The engine is %s", choice)

    # -- what must hold --------------------------------------------------------------------------------------------

    def _demand_sense(self) -> Policy:
        """A run takes hours, and the phase may change meanwhile: over the truth nothing is copied."""
        if self._reverse:
            policy = demand_deletions_reach_s3(self._storage)
        else:
            policy = demand_local_truth(self._storage, "backfill")
        self._watch.demand()
        return policy

    def _demand_files(self, report: Report, comparison: Comparison, stop: Stop) -> None:
        if comparison.objects and not report.files and self.is_whole and not stop and not self._late:
            raise RefusedError(
                f"MEDIA_ROOT {self._storage.root} has no files, but S3 has {comparison.objects:,} under its prefix. "
                "Is the volume mounted? Nothing was changed."
            )

    # -- what is to be done ----------------------------------------------------------------------------------------

    def _comparison(self, inventory: Inventory, stop: Stop, deadline: float | None) -> Comparison:
        # A dry run makes nothing, so not this either.
        known = None if self._dry_run and not os.path.exists(inventory.path) else inventory
        listing = self._listing(stop, deadline)
        return Comparison(listing, known, prefix=self._prefix, selection=self._selection)

    def _listing(self, stop: Stop, deadline: float | None) -> Iterator[tuple[str, ListedObject]]:
        """What S3 has, which may take long to tell."""
        for number, entry in enumerate(self._pair.s3.list_all(self._prefix)):
            if not number % 1000:
                if stop:
                    raise _EndedError
                if self._is_over(deadline):
                    raise _EndedError
            yield entry

    def _is_over(self, deadline: float | None) -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            self._late = True
        return self._late

    def _until(self, deadline: float | None, things: Iterator[Compared | Counted]) -> Iterator[Compared | Counted]:
        for thing in things:
            if self._is_over(deadline):
                return
            yield thing

    def _todo(self, comparison: Comparison, hinted: HintedNames) -> Iterator[Compared | Counted]:
        """Each thing to be asked or done, and the count of the others, in the order in which they were found."""
        count_certified = self._belief is not Belief.HASH
        batches = comparison.of(self._storage.root, count_certified=count_certified, but=hinted)
        if self._order is None:
            for batch in batches:
                counted, others = self._divided(batch, hinted)
                if counted is not None:
                    yield counted
                yield from others
            return
        # The counts are few and small; they go first, so that the rest is all that is left.
        counts: list[Counted] = []
        things = ordered(self._others(batches, hinted, counts), self._order)
        first = next(things, None)
        yield from counts
        if first is not None:
            yield first
            yield from things

    def _others(self, batches: Iterable[Batch], hinted: HintedNames, counts: list[Counted]) -> Iterator[Compared]:
        for batch in batches:
            counted, others = self._divided(batch, hinted)
            if counted is not None:
                counts.append(counted)
            yield from others

    def _divided(self, batch: Batch, hinted: HintedNames) -> tuple[Counted | None, list[Compared]]:
        """What is only to be counted, and what is to be asked or done."""
        outcomes = {Outcome.CERTIFIED: batch.unchanged} if batch.unchanged else {}
        size = batch.unchanged_bytes
        others, s3_only = [], []
        same_size = local_only = 0
        for one in batch.others:
            if one.local is None and one.odd is None:
                if self._reverse:
                    others.append(one)
                else:
                    s3_only.append(one.name)
            elif self._reverse and one.listed is None:
                local_only += one.odd is None
            elif self._believes_size(one) and one.name not in hinted:
                same_size += 1
                size += one.listed.size if one.listed else 0
            else:
                others.append(one)
        if same_size:
            outcomes[Outcome.SAME_SIZE] = same_size
        if not (outcomes or s3_only or local_only):
            return None, others
        return Counted(outcomes, size, tuple(s3_only), local_only), others

    def _believes_size(self, one: Compared) -> bool:
        return (
            self._belief is Belief.SIZE
            and one.local is not None
            and one.listed is not None
            and one.local.size == one.listed.size
        )

    def _work(self, copying: Copying) -> Callable[[Compared | Counted], FileResult | Counted]:
        if self._reverse:
            do = copying.would_to_disk if self._dry_run else copying.to_disk
        else:
            do = copying.would_to_s3 if self._dry_run else copying.to_s3

        def work(thing: Compared | Counted) -> FileResult | Counted:
            if isinstance(thing, Counted):
                return thing
            return do(thing, self._storage.policy if self._dry_run else self._demand_sense())

        return work

    # -- what is remembered ----------------------------------------------------------------------------------------

    def _remember(self, report: Report, inventory: Inventory) -> None:
        moved = report.counts[Outcome.UPLOADED] + report.counts[Outcome.REPLACED] + report.counts[Outcome.BROUGHT_HOME]
        if self._dry_run:
            speed = inventory.speed()
            report.estimate = speed.estimate(moved, report.bytes_moved) if speed else None
            return
        if moved >= _ENOUGH_FOR_SPEED:
            inventory.note_speed(Speed(moved, report.bytes_moved, report.seconds))
        if self.is_whole and report.files:
            records.set_certified(
                self._storage.alias or DEFAULT_ALIAS,
                complete=report.complete,
                phase=self._storage.policy.phase,
                volume_id=self._pair.journal.volume_id,
                place=self._storage.place,
            )
            self._storage.records.forget()


def _count(report: Report, counted: Counted) -> None:
    for outcome, files in counted.outcomes.items():
        report.add_many(outcome, files)
    report.add_s3_only(counted.s3_only)
    report.local_only += counted.local_only


class _Learned:
    """What the run has seen to be certified, on its way into the inventory in bulk."""

    def __init__(self, inventory: Inventory | None) -> None:
        self._inventory = inventory
        self._rows: list[Certified] = []
        self._noted = time.monotonic()

    def add(self, result: FileResult) -> None:
        version = result.version
        if self._inventory is None or version is None or not result.etag or not result.clean:
            return
        if result.outcome not in _LEARNED:
            return
        self._rows.append(Certified(result.name, version.size, version.mtime_ns, bare_etag(result.etag)))
        if len(self._rows) >= _NOTE_FILES or time.monotonic() - self._noted >= _NOTE_SECONDS:
            self.note()

    def note(self) -> None:
        """Write down what there is."""
        if self._inventory is not None:
            self._inventory.note(self._rows)
        self._rows = []
        self._noted = time.monotonic()
