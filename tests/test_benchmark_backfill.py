"""The benchmark of the backfill: what it works out of its measurements, and that it believes no mover."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.backfill import command, report
from benchmarks.backfill.bars import BARS, Bar, Ratios, ratios
from benchmarks.backfill.buckets import Contents
from benchmarks.backfill.measuring import Cost, MoverError, timed, typical
from benchmarks.backfill.rounds import Cell, Series, demand_all
from benchmarks.backfill.servers import SERVERS
from benchmarks.backfill.workloads import MIB, WORKLOADS, Workload, written

SMALL = WORKLOADS["small"]
TINY = Workload("tiny", 7, 3, 100, 200)
ROOT = Path(__file__).parent.parent


def cost(seconds: float, cpu: float = 1.0, rss: int = 50 * MIB) -> Cost:
    return Cost(seconds, cpu, rss)


def cell(server: str = "null", workload: Workload = SMALL, **costs: list[Cost]) -> Cell:
    return Cell(workload, server, [Series(name, "defaults", found) for name, found in costs.items()])


def lines_of(measured: Cell) -> str:
    return "\n".join(report.cell_lines(measured))


# -- work-loads --------------------------------------------------------------------------------------------------------


def test_a_workload_is_the_same_each_time(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with written(TINY, str(tmp_path)) as folder:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            found.append([(str(file.relative_to(folder)), hashlib.md5(file.read_bytes()).digest()) for file in files])
    assert found[0] == found[1]
    assert len(found[0]) == len(set(found[0])) == 7
    assert os.listdir(tmp_path) == []


def test_its_files_have_the_sizes_that_it_tells(tmp_path: Path) -> None:
    TINY.write(tmp_path)
    assert {(name, (tmp_path / name).stat().st_size) for name, _ in TINY.sizes()} == set(TINY.sizes())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) == TINY.total


def test_the_workloads_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "benchmarks.rst").read_text()
    for workload in WORKLOADS.values():
        assert f"``{workload.name}``" in page
        assert f"{workload.files:,} files" in page
    assert 4 * 1024 <= min(size for _, size in SMALL.sizes()) <= max(size for _, size in SMALL.sizes()) <= 64 * 1024
    assert len({name.partition("/")[0] for name, _ in SMALL.sizes()}) == 100


def test_a_scaled_large_workload_still_goes_up_in_parts() -> None:
    scaled = WORKLOADS["large"].scaled(0.01)
    assert scaled.files == 1
    assert scaled.total == 24 * MIB
    assert SMALL.scaled(0.05).files == 500
    assert SMALL.scaled(1.0) == SMALL


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_typical_run_is_the_median_of_each_figure() -> None:
    runs = [Cost(1, 9, 100, 0.1), Cost(2, 1, 300, 0.2), Cost(30, 2, 200, 0.9)]
    assert typical(runs) == Cost(2, 2, 200, 0.2)
    with pytest.raises(ValueError, match="no run"):
        typical([])


def test_ours_is_held_against_the_better_of_the_rivals_in_each_respect() -> None:
    found = ratios(cost(2.0, 1.0), [cost(4.0, 8.0), cost(6.0, 5.0)])
    assert (found.speed, found.cpu) == (2.0, 0.2)
    with pytest.raises(ValueError, match="nobody"):
        ratios(cost(1), [])


@pytest.mark.parametrize(
    ("found", "reached"),
    [
        (Ratios(1.9, 0.5, 64 * MIB), True),
        (Ratios(1.899, 0.5, 0), False),
        (Ratios(1.9, 0.501, 0), False),
        (Ratios(1.9, 0.5, 64 * MIB + 1), False),
    ],
)
def test_a_bar_is_reached_by_what_equals_it_and_not_by_what_rounds_to_it(found: Ratios, reached: bool) -> None:
    assert found.reach(Bar(1.9, 0.5, 64)) is reached


def test_no_aim_is_below_its_floor() -> None:
    for bars in BARS.values():
        assert bars.aim.speed >= bars.floor.speed
        assert bars.aim.cpu <= bars.floor.cpu


def test_every_bar_is_of_something_that_is_measured() -> None:
    measured = {(workload, server) for workload, servers in command.SERVERS_OF.items() for server in servers}
    assert set(BARS) == measured
    assert {server for _, server in measured} == set(SERVERS)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_says_what_was_met_and_what_was_missed() -> None:
    text = lines_of(cell(ours=[cost(2.0, 0.4)], s5cmd=[cost(4.0, 1.0)], rclone=[cost(5.0, 1.2)], aws=[cost(40, 40)]))
    assert "small on null: 10,000 files" in text
    assert "ours: 2.00 x the throughput, 0.40 of the CPU, 50 MiB" in text
    assert "floor (>= 1.9 x, <= 0.5) MET; aim (>= 3 x, <= 0.2) missed" in text
    assert "5,000" in text.split("ours", 1)[1].splitlines()[0]  # files a second


def test_one_rival_alone_is_no_comparison() -> None:
    measured = cell(ours=[cost(1.0)], s5cmd=[cost(4.0)])
    assert "no comparison" in lines_of(measured)
    assert report.as_json(measured)["floor_met"] is None


def test_a_rival_that_failed_is_no_comparison_even_with_runs() -> None:
    measured = cell(ours=[cost(1.0)], s5cmd=[cost(4.0)], rclone=[cost(9.0)])
    measured.series[1].failure = "it left 9,999 objects"
    text = lines_of(measured)
    assert "no comparison" in text
    assert "FAILED: it left 9,999 objects" in text


def test_the_json_has_every_run_and_the_verdict() -> None:
    measured = cell("seaweedfs", ours=[cost(2.0), cost(3.0)], s5cmd=[cost(3.0)], rclone=[cost(4.0)])
    found = json.loads(json.dumps(report.as_json(measured)))
    assert found["ratios"] == {"speed": 1.2, "cpu": 1.0, "rss_mib": 50.0}
    assert (found["floor_met"], found["aim_met"]) == (False, False)
    assert [run["seconds"] for run in found["movers"][0]["runs"]] == [2.0, 3.0]


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_costs_what_the_program_takes_and_not_what_its_starter_has(tmp_path: Path) -> None:
    ballast = bytearray(100 * MIB)  # a child's peak memory counts from what its parent had
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    script = (
        "import time; data = bytearray(40 << 20); end = time.process_time() + 0.1\nwhile time.process_time() < end: 0"
    )
    found = timed([sys.executable, "-S", "-c", script], dict(os.environ), tmp_path)
    assert 0.1 <= found.cpu <= found.seconds + 0.1
    assert 40 * MIB < found.rss < 80 * MIB


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(MoverError, match="ended with 3: out of luck"):
        timed(["/bin/sh", "-c", "echo out of luck >&2; exit 3"], {}, tmp_path)


def test_a_mover_that_did_less_is_caught() -> None:
    all_of_it = Contents(TINY.files, TINY.total, "2026-11-22T10:00:00.000Z")
    demand_all(TINY, all_of_it)
    demand_all(TINY, all_of_it, newest=all_of_it.newest)
    with pytest.raises(MoverError, match="6 objects"):
        demand_all(TINY, Contents(TINY.files - 1, TINY.total, ""))
    with pytest.raises(MoverError, match="bytes"):
        demand_all(TINY, Contents(TINY.files, TINY.total - 1, ""))
    with pytest.raises(MoverError, match="nothing to do, and it wrote"):
        demand_all(TINY, all_of_it, newest="2026-11-22T09:59:59.000Z")


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "huge"],
        ["--scale", "0"],
        ["--scale", "2"],
        ["--repeats", "0"],
        ["--only", "nothing", "--movers", "s5cmd"],
    ],
)
def test_wrong_options_end_it_before_anything_is_written(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        command.main(words)
    assert leaving.value.code == 2


def test_the_first_word_chooses_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "put back afterwards")
    for words, option in ("backfill --help", "--slow-repeats"), ("--help", "--rounds"):
        with pytest.raises(SystemExit):
            benchmarks(words.split())
        assert option in capsys.readouterr().out
