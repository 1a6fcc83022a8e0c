"""Sizes, times and ages as people type them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.core.quantities import parse_duration, parse_since, parse_size, show_bytes, show_duration

NOW = datetime(2024, 5, 31, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500), ("20M", 20_000_000), ("20m/s", 20_000_000), ("1.5GiB", 3 << 29), ("1 kB", 1000), ("2Ti", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "20X", "0", "0.1", "1e3", "5i", "1,000", "٣"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("7d", 604_800), ("0.5W", 302_400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "5 minutes", "-3h", "h", "1h 30"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-30", datetime(2024, 5, 30, tzinfo=NOW.tzinfo)),
        ("2024-05-30T18:00", datetime(2024, 5, 30, 18, tzinfo=NOW.tzinfo)),
        ("2024-05-30T18:00:00Z", datetime(2024, 5, 30, 18, tzinfo=timezone.utc)),
        ("2024-05-30 18:00+05:00", datetime(2024, 5, 30, 13, tzinfo=timezone.utc)),
        ("7d", NOW - timedelta(days=7)),
    ],
)
def test_since(text: str, moment: datetime) -> None:
    assert parse_since(text, NOW) == int(moment.timestamp()) * 1_000_000_000


@pytest.mark.parametrize("text", ["yesterday", "", "2024-13-01"])
def test_no_since(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        parse_since(text, NOW)


@given(st.floats(min_value=0, max_value=1e9), st.floats(min_value=0, max_value=1e9))
def test_longer_never_reads_as_shorter(one: float, other: float) -> None:
    def read(text: str) -> int:
        number, _unit = text.replace(",", "").split()
        total = 0
        for part in number.split(":"):
            total = total * 60 + int(part)
        return total

    shorter, longer = sorted((one, other))
    assert read(show_duration(shorter)) <= read(show_duration(longer))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (812, "812 B"), (4_100, "4.1 kB"), (999_700, "1.0 MB"), (1.2e12, "1.2 TB"), (123e6, "123 MB")],
)
def test_bytes(size: float, text: str) -> None:
    assert show_bytes(size) == text
