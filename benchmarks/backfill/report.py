"""The table, and plain data for ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.backfill.bars import BARS, OURS, RIVALS, Bar, Bars, Ratios, ratios
from benchmarks.backfill.measuring import Cost, typical
from benchmarks.backfill.rounds import Cell, Series
from benchmarks.backfill.workloads import MIB

HEAD = f"{'':<8}{'runs':>5}{'wall s':>9}{'files/s':>10}{'MB/s':>8}{'CPU s':>8}{'server s':>10}{'RSS MiB':>9}  settings"


def cell_lines(cell: Cell) -> Iterator[str]:
    """One work-load on one server: a line for each mover, and how ours compares."""
    yield f"{cell.workload.name} on {cell.server}: {_described(cell)}"
    for series in cell.series:
        yield _series_line(cell, series)
    yield _verdict_line(cell)


def compared(cell: Cell) -> Ratios | None:
    """Ours beside its rivals. None if ours or a rival has no figures: beside one alone, ours might look better."""
    costs = {series.mover: typical(series.costs) for series in cell.series if series.costs and not series.failure}
    if any(name not in costs for name in (OURS, *RIVALS)):
        return None
    return ratios(costs[OURS], [costs[name] for name in RIVALS])


def bars_of(cell: Cell) -> Bars | None:
    """What it is held against; None where nothing was promised."""
    return BARS.get((cell.workload.name, cell.server))


def as_json(cell: Cell) -> dict[str, Any]:
    """Plain data: every run, the medians, the ratios and what they reach."""
    found, bars = compared(cell), bars_of(cell)
    return {
        "workload": cell.workload.name,
        "server": cell.server,
        "files": cell.workload.files,
        "bytes": cell.workload.total,
        "movers": [_series_json(series) for series in cell.series],
        "ratios": None if found is None else found.as_json(),
        "floor_met": None if found is None or bars is None else found.reach(bars.floor),
        "aim_met": None if found is None or bars is None else found.reach(bars.aim),
    }


def _described(cell: Cell) -> str:
    files = "1 file" if cell.workload.files == 1 else f"{cell.workload.files:,} files"
    there = ", all of them there already" if cell.workload.is_there else ""
    return f"{files}, {cell.workload.total / 1e6:,.1f} MB{there}"


def _series_line(cell: Cell, series: Series) -> str:
    if series.failure or not series.costs:
        return f"{series.mover:<8}  FAILED: {series.failure or 'no run'}"
    cost = typical(series.costs)
    return (
        f"{series.mover:<8}{len(series.costs):>5}{cost.seconds:>9.2f}{cell.workload.files / cost.seconds:>10,.0f}"
        f"{cell.workload.total / cost.seconds / 1e6:>8,.0f}{cost.cpu:>8.2f}{cost.server_cpu:>10.2f}"
        f"{cost.rss / MIB:>9.0f}  {series.setting}"
    )


def _verdict_line(cell: Cell) -> str:
    found, bars = compared(cell), bars_of(cell)
    if found is None:
        return f"no comparison: it takes {OURS}, {' and '.join(RIVALS)}"
    figures = f"ours: {found.speed:.2f} x the throughput, {found.cpu:.2f} of the CPU, {found.rss / MIB:.0f} MiB"
    if bars is None:
        return figures
    return f"{figures}; floor {_judged(found, bars.floor)}; aim {_judged(found, bars.aim)}"


def _judged(found: Ratios, bar: Bar) -> str:
    return f"({bar}) {'MET' if found.reach(bar) else 'missed'}"


def _series_json(series: Series) -> dict[str, Any]:
    return {
        "mover": series.mover,
        "setting": series.setting,
        "failure": series.failure or None,
        "median": _cost_json(typical(series.costs)) if series.costs else None,
        "runs": [_cost_json(cost) for cost in series.costs],
    }


def _cost_json(cost: Cost) -> dict[str, float]:
    return {
        "seconds": round(cost.seconds, 4),
        "cpu": round(cost.cpu, 4),
        "server_cpu": round(cost.server_cpu, 4),
        "rss_mib": round(cost.rss / MIB, 1),
    }
