"""Two calls side by side: interleaved in blocks, so that what else the machine does strikes both alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

Call = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Of one call: medians, over the blocks, of a block's mean. Seconds."""

    cpu: float
    wall: float

    def as_json(self) -> dict[str, float]:
        """Milliseconds, as plain data."""
        return {"cpu_ms": round(self.cpu * 1e3, 4), "wall_ms": round(self.wall * 1e3, 4)}


def compare(ours: Call, theirs: Call, *, calls: int, rounds: int) -> tuple[Cost, Cost]:
    """The cost of both: ``rounds`` times a block of ``calls`` of the one and of the other, in changing order."""
    blocks: dict[Call, list[Cost]] = {ours: [], theirs: []}
    for call in (ours, theirs):
        _block(call, max(2, calls // 4))  # connections, caches
    for number in range(rounds):
        for call in (ours, theirs) if number % 2 else (theirs, ours):
            blocks[call].append(_block(call, calls))
    return _typical(blocks[ours]), _typical(blocks[theirs])


def _block(call: Call, calls: int) -> Cost:
    gc.collect()
    # The whole process: managed transfers work in threads of their own. The server is another process.
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        call()
    return Cost((time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls)


def _typical(blocks: list[Cost]) -> Cost:
    return Cost(median(block.cpu for block in blocks), median(block.wall for block in blocks))
