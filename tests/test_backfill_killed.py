"""kill -9 at random moments of one backfill: running it again does what is left, and next to nothing twice.

``DUALSTORAGE_LONG=1`` kills fifty times.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.support.asserts import assert_sides_equal, repaired
from tests.support.proxy import FaultProxy
from tests.support.site import DEADLINE, Site

LONG = os.environ.get("DUALSTORAGE_LONG") == "1"
KILLS = 50 if LONG else 4
FILES = 6000 if LONG else 600
WORKERS = 8
_OF_FILES = r"/\d+/\d+\.txt$"


@pytest.mark.timeout(3600)
def test_a_backfill_that_is_killed_again_and_again_ends_with_both_sides_equal(site: Site, proxy: FaultProxy) -> None:
    for number in range(FILES):
        path = Path(site.storage.location, str(number % 50), f"{number}.txt")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number)
        os.utime(path, ns=(number + 1, number + 1))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    killed = 0
    for _ in range(KILLS):
        before = proxy.count("PUT", _OF_FILES)
        process = site.start("dualstorage_backfill", "--workers", str(WORKERS))
        deadline = time.monotonic() + DEADLINE
        while proxy.count("PUT", _OF_FILES) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.communicate()
        killed += process.returncode < 0
    assert killed > KILLS * 0.8, "the files were too few for so many kills"
    code, out, err = site.run("dualstorage_backfill", "--workers", str(WORKERS), "--json")
    assert code == 0, err
    assert json.loads(out)["files"] == FILES
    again = proxy.count("PUT", _OF_FILES) - FILES
    print(f"{killed} kills, {again} uploads done again")
    assert 0 <= again <= killed * WORKERS
    assert repaired(site.storage).complete  # as if the grace period of those killed were over
    assert_sides_equal(site.storage)
