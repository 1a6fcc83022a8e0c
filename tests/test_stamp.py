"""Stamps: written and read back, and never the same twice."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.stamp import Stamp, next_mtime_ns, parse_stamp, stamp_metadata, stamp_of

SIZES = st.integers(0, 10**19 - 1)
TIMES = st.integers(-(10**19), 10**19)


@given(size=SIZES, mtime_ns=TIMES)
def test_a_stamp_is_read_back(size: int, mtime_ns: int) -> None:
    stamp = Stamp(size, mtime_ns)
    assert parse_stamp(str(stamp)) == stamp
    assert stamp_of(stamp_metadata(stamp, "op")) == stamp


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        ":",
        "1",
        "1:",
        ":1",
        "-1:1",
        "1:--1",
        "1:1 ",
        " 1:1",
        "1:1\n",
        "1:1:1",
        "1.0:1",
        "٣:1",
        "1:٣",
        "1:1e9",
        "9" * 20 + ":1",
        "1:" + "9" * 21,
    ],
)
def test_what_nobody_of_us_wrote_is_no_stamp(text: str | None) -> None:
    assert parse_stamp(text) is None


@given(text=st.text(max_size=30))
def test_any_text_is_a_stamp_or_none(text: str) -> None:
    stamp = parse_stamp(text)
    assert stamp is None or parse_stamp(str(stamp)) == stamp


def test_an_object_tells_its_stamp_and_its_operation() -> None:
    info = ObjectInfo(
        "k", 3, '"e"', datetime.now(timezone.utc), metadata={"ds-stamp": "3:7", "ds-op": "abc", "site": "x"}
    )
    assert info.stamp == Stamp(3, 7)
    assert info.op_id == "abc"
    foreign = ObjectInfo("k", 3, '"e"', datetime.now(timezone.utc))
    assert foreign.stamp is None
    assert foreign.op_id is None


@given(replaced=st.none() | st.integers(0, 2**62), now=st.integers(0, 2**62))
def test_a_version_is_later_than_the_one_it_replaces(replaced: int | None, now: int) -> None:
    mtime_ns = next_mtime_ns(replaced, now)
    assert mtime_ns > (replaced if replaced is not None else -1)
    assert abs(mtime_ns - max(now, replaced or 0)) <= 1_000_001


def test_versions_of_one_moment_differ() -> None:
    now = time.time_ns()
    times = {next_mtime_ns(None, now) for _ in range(200)}
    # Two of 200 in a million fall together with a probability of 2 %, ten of them never.
    assert len(times) > 190
    assert all(abs(next_mtime_ns(None) - time.time_ns()) < 10**9 for _ in range(10))


def test_versions_that_replace_each_other_within_one_tick_all_differ() -> None:
    now = time.time_ns()
    seen = [next_mtime_ns(None, now)]
    for _ in range(1000):
        seen.append(next_mtime_ns(seen[-1], now))
    assert seen == sorted(set(seen))
