"""The files that are moved: the same names and bytes each time, so that two runs compare."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

KIB = 1 << 10
MIB = 1 << 20

_SUFFIXES = ("jpg", "png", "pdf", "txt")
#: Long ago: movers that go by the time of modification see an object that is younger than its file, and ours waits
#: for files that were written just now.
_MODIFIED = 1_600_000_000


@dataclass(frozen=True)
class Workload:
    """So many files, spread over so many folders, with sizes in bytes between two bounds."""

    name: str
    files: int
    folders: int
    smallest: int
    largest: int
    #: Whether all of it is on the server already.
    is_there: bool = False

    def scaled(self, factor: float) -> Workload:
        """``factor`` of the files, at least one. Large files shrink too, but stay above what goes up in one piece."""
        shrunk = max(min(24 * MIB, self.largest), round(self.largest * factor))
        return replace(
            self,
            files=max(1, round(self.files * factor)),
            folders=max(1, round(self.folders * factor)),
            smallest=min(self.smallest, shrunk),
            largest=shrunk,
        )

    def sizes(self) -> list[tuple[str, int]]:
        """Name, relative to the folder, and size of each file."""
        generator = random.Random(self.name)
        return [
            (
                f"{number % self.folders:03d}/{number:06d}.{_SUFFIXES[number % len(_SUFFIXES)]}",
                generator.randint(self.smallest, self.largest),
            )
            for number in range(self.files)
        ]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.sizes())

    def write(self, folder: Path) -> None:
        """Write the files."""
        generator = random.Random(f"{self.name}: bytes")
        for name, size in self.sizes():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                left = size
                while left:
                    left -= file.write(generator.randbytes(min(left, MIB)))
            os.utime(path, (_MODIFIED, _MODIFIED))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small", 10_000, 100, 4 * KIB, 64 * KIB),
        Workload("medium", 300, 10, MIB, MIB),
        Workload("large", 6, 1, 256 * MIB, 256 * MIB),
        Workload("nothing", 100_000, 200, 100, 1_000, is_there=True),
    )
}


def roomy_parent(needed: int) -> str | None:
    """A folder in memory if ``needed`` bytes fit in twice (the server keeps a copy), else None: the usual place."""
    memory = "/dev/shm"
    try:
        if os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free > 2 * needed + (1 << 30):
            return memory
    except OSError:
        pass
    return None


@contextmanager
def written(workload: Workload, parent: str | None = None) -> Iterator[Path]:
    """The files in a folder of their own, below ``parent`` or where there is room; removed at the end."""
    place = parent or roomy_parent(workload.total)
    with tempfile.TemporaryDirectory(prefix="dualstorage-bench-", dir=place) as folder:
        workload.write(Path(folder))
        yield Path(folder)
