"""Sizes, times and rates as people type and read them."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Final

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(?:b(?:ytes?)?)?(?:/s)?", re.IGNORECASE | re.ASCII)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE | re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_size(text: str) -> int:
    """Bytes: ``500``, ``20M`` (millions), ``20MiB`` (of 1,048,576), ``1.5G``; ``20M/s`` is the same. At least 1.

    Raises ValueError.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a size such as 500K, 20M or 1.5GiB")
    number, unit, binary = found.groups()
    if binary and not unit:
        raise ValueError(f"{text!r} is not a size such as 500K, 20M or 1.5GiB")
    size = int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
    if size < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return size


def parse_duration(text: str) -> float:
    """Seconds: ``90``, ``90s``, ``15m``, ``2h``, ``7d``, ``1w``, and sums such as ``1h30m``. More than 0.

    Raises ValueError.
    """
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and not _DURATION.sub("", text).strip():
        seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    elif re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        seconds = float(text)
    else:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m, 2h, 7d or 1h30m")
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time at all")
    return seconds


def parse_since(text: str, now: datetime) -> int:
    """The moment, in nanoseconds since the epoch, of a date (``2024-05-31``), of a date and time in ISO 8601
    (``2024-05-31T18:00``, with ``Z`` or an offset, else in the time zone of ``now``), or of an age (``7d``).

    ``now`` knows its time zone. Raises ValueError.
    """
    text = text.strip()
    try:
        seconds = now.timestamp() - parse_duration(text)
    except ValueError:
        # Python 3.10 reads no Z.
        iso = re.sub(r"[zZ]$", "+00:00", text)
        try:
            moment = datetime.fromisoformat(iso)
        except ValueError:
            raise ValueError(
                f"{text!r} is neither a date (2024-05-31), nor a date and time (2024-05-31T18:00), nor an age (7d)"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=now.tzinfo)
        since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
        return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return int(seconds * 1e9)


def show_duration(seconds: float) -> str:
    """``42 s``, ``12:05 min``, ``3:07:00 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60:,}:{minutes % 60:02d}:{rest:02d} h"


def show_count(number: int, what: str) -> str:
    """``1 file``, ``1,200 files``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def show_bytes(size: float) -> str:
    """``812 B``, ``4.1 kB``, ``1.2 TB``: powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
