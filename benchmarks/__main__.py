"""``python -m benchmarks`` measures single calls, ``python -m benchmarks backfill`` a backfill."""

from __future__ import annotations

import os
import sys

_BACKFILL = "backfill"


def main(words: list[str]) -> int:
    """Hand over to the benchmark that the first word names. What it imports depends on it, and reads the settings."""
    if words[:1] == [_BACKFILL]:
        from benchmarks.backfill import command

        return command.main(words[1:])
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    from benchmarks import per_call

    return per_call.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
