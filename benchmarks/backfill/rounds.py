"""One work-load on one server: each mover at its best, in turns, so that what else runs strikes all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.backfill.bars import OURS
from benchmarks.backfill.buckets import Buckets, Contents
from benchmarks.backfill.measuring import Cost, MoverError, timed
from benchmarks.backfill.movers import Job, Mover, Setting
from benchmarks.backfill.servers import Target
from benchmarks.backfill.workloads import Workload

Tell = Callable[[str], None]
#: Runs with each setting, of which the best counts: one may have met a busy machine.
_TRIES = 2


@dataclass(frozen=True)
class Plan:
    """How often, and whether settings are tried before."""

    repeats: int
    slow_repeats: int
    tune: bool

    def rounds_of(self, mover: Mover) -> int:
        """How often it takes part."""
        return min(self.repeats, self.slow_repeats) if mover.is_slow else self.repeats


@dataclass
class Series:
    """The runs of one mover."""

    mover: str
    setting: str
    costs: list[Cost] = field(default_factory=list)
    #: Why it has no more runs than it has; empty while all went well.
    failure: str = ""


@dataclass(frozen=True)
class Cell:
    """What was measured with one work-load on one server."""

    workload: Workload
    server: str
    series: list[Series]


def measure(
    workload: Workload, folder: Path, target: Target, movers: Sequence[Mover], plan: Plan, scratch: Path, tell: Tell
) -> Cell:
    """Measure. A mover that fails, or that moved less than all, is not run again and its failure is kept.

    Raises MoverError if ours fails to fill the bucket where all has to be there already.
    """
    bench = _Bench(workload, folder, target, scratch)
    with bench.prepared(movers):
        chosen: list[tuple[Mover, Setting]] = []
        cell = Cell(workload, target.name, [])
        for mover in movers:
            setting, failure = bench.best_setting(mover, plan, tell)
            chosen.append((mover, setting))
            cell.series.append(Series(mover.name, str(setting), failure=failure))
        for number in range(plan.repeats):
            turn = list(zip(chosen, cell.series, strict=True))
            first = number % len(turn)
            for (mover, setting), series in turn[first:] + turn[:first]:
                if not series.failure and number < plan.rounds_of(mover):
                    tell(bench.run_into(series, mover, setting))
    return cell


class _Bench:
    def __init__(self, workload: Workload, folder: Path, target: Target, scratch: Path) -> None:
        self._workload = workload
        self._folder = folder
        self._target = target
        self._scratch = scratch
        self._buckets = Buckets(target)
        self._full: str | None = None

    @contextmanager
    def prepared(self, movers: Sequence[Mover]) -> Iterator[None]:
        """Where all has to be there already, it is put there: by ours, since no other mover leaves what ours looks for.

        The others see objects of the right size that are younger than the files.
        """
        if not self._workload.is_there:
            yield
            return
        ours = next(mover for mover in movers if mover.name == OURS)
        with self._buckets.fresh() as bucket:
            job = self._job(ours, bucket)
            with ours.ready(job):
                timed(ours.command(job, ours.settings(self._workload)[0]), ours.environment(job), job.scratch)
            self._full = bucket
            try:
                yield
            finally:
                self._full = None

    def best_setting(self, mover: Mover, plan: Plan, tell: Tell) -> tuple[Setting, str]:
        """The quickest of its settings, and why there is none. One that fails is no candidate."""
        settings = mover.settings(self._workload)
        if len(settings) == 1 or not plan.tune:
            return settings[0], ""
        best: tuple[float, Setting] | None = None
        failure = ""
        for setting in settings:
            try:
                seconds = min(self._run(mover, setting).seconds for _ in range(_TRIES))
            except MoverError as error:
                failure = str(error)
                continue
            tell(f"{mover.name} {setting}: {seconds:.2f} s")
            if best is None or seconds < best[0]:
                best = (seconds, setting)
        return (settings[0], failure) if best is None else (best[1], "")

    def run_into(self, series: Series, mover: Mover, setting: Setting) -> str:
        """One more run; how it went."""
        try:
            cost = self._run(mover, setting)
        except MoverError as error:
            series.failure = str(error)
            return f"{mover.name} FAILED: {error}"
        series.costs.append(cost)
        return f"{mover.name}: {cost.seconds:.2f} s"

    def _run(self, mover: Mover, setting: Setting) -> Cost:
        if self._full is not None:
            return self._run_in(self._full, mover, setting)
        with self._buckets.fresh() as bucket:
            return self._run_in(bucket, mover, setting)

    def _run_in(self, bucket: str, mover: Mover, setting: Setting) -> Cost:
        job = self._job(mover, bucket)
        newest = self._buckets.contents(bucket).newest if self._workload.is_there else None
        with mover.ready(job):
            self._buckets.rest()
            before = self._target.cpu()
            cost = timed(mover.command(job, setting), mover.environment(job), job.scratch)
            server_cpu = self._target.cpu() - before
        demand_all(self._workload, self._buckets.contents(bucket), newest)
        return Cost(cost.seconds, cost.cpu, cost.rss, server_cpu)

    def _job(self, mover: Mover, bucket: str) -> Job:
        scratch = self._scratch / mover.name
        scratch.mkdir(exist_ok=True)
        return Job(self._workload, self._folder, self._target, bucket, scratch)


def demand_all(workload: Workload, found: Contents, newest: str | None = None) -> None:
    """Raises MoverError if the bucket has other than the whole work-load, or anything younger than ``newest``."""
    if (found.objects, found.bytes) != (workload.files, workload.total):
        raise MoverError(
            f"it left {found.objects:,} objects of {found.bytes:,} bytes on the server, "
            f"not {workload.files:,} of {workload.total:,}"
        )
    if newest is not None and found.newest != newest:
        raise MoverError("there was nothing to do, and it wrote objects")
