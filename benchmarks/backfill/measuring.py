"""What one run of a mover costs, and what several cost typically."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_STOPWATCH = Path(__file__).with_name("stopwatch.py")
_MESSAGE = 2_000


@dataclass(frozen=True)
class Cost:
    """Of one run, or medians of several. Seconds; CPU of the client process and its children; bytes of peak memory."""

    seconds: float
    cpu: float
    rss: int
    #: CPU seconds that the server took meanwhile.
    server_cpu: float = 0.0


class MoverError(RuntimeError):
    """A mover did not do what it was asked to; the message says what it wrote, or what is missing."""


def typical(costs: Sequence[Cost]) -> Cost:
    """The median of each figure. Raises ValueError for none."""
    if not costs:
        raise ValueError("no run, so no typical cost")
    return Cost(
        median(cost.seconds for cost in costs),
        median(cost.cpu for cost in costs),
        round(median(cost.rss for cost in costs)),
        median(cost.server_cpu for cost in costs),
    )


def timed(command: Sequence[str], environment: Mapping[str, str], scratch: Path) -> Cost:
    """Run a command to its end. Raises MoverError with what it wrote if it says that it failed."""
    result, log = scratch / "cost.json", scratch / "log"
    with log.open("wb") as output:
        subprocess.run(
            [sys.executable, "-I", "-S", str(_STOPWATCH), str(result), *command],
            env=dict(environment),
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )
    cost = json.loads(result.read_text())
    if cost["status"]:
        said = log.read_bytes()[-_MESSAGE:].decode(errors="replace").strip()
        raise MoverError(f"{Path(command[0]).name} ended with {cost['status']}: {said or 'it wrote nothing'}")
    return Cost(cost["seconds"], cost["cpu"], cost["rss_kib"] * 1024)
