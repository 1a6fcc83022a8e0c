"""Random histories of one site over a wire that fails at random: a reader always sees what a plain dict says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.probe import probe
from tests.support.asserts import assert_sides_equal, ignore, never_stop, repaired
from tests.support.lab import Lab, seen
from tests.support.proxy import HeldAndLate, LostAnswer, Refused, Status, Truncated

NAMES = ("a.txt", "b/c.txt")
EXAMPLES = 400 if os.environ.get("DUALSTORAGE_LONG") == "1" else 40

FAULTS = (Status(503), Status(403), Refused(), LostAnswer(), HeldAndLate(), Truncated(1))
operations = st.tuples(
    st.sampled_from(["save", "save", "delete", "rewrite", "remove", "backfill", "repair", "release"]),
    st.sampled_from(NAMES),
    st.integers(0, 30),
)
faults = st.lists(
    st.tuples(st.sampled_from(FAULTS), st.sampled_from(["PUT", "DELETE", "GET", "HEAD"]), st.integers(0, 4)), max_size=6
)


@pytest.fixture(scope="module", autouse=True)
def _probed(lab: Lab) -> None:
    probe(lab.storage("dual", allow_overwrite=True).pair)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(operations, min_size=1, max_size=12), broken=faults)
def test_reader_sees_what_was_written_last(
    lab: Lab, history: list[tuple[str, str, int]], broken: list[tuple[Status, str, int]]
) -> None:
    storage = lab.storage("dual", allow_overwrite=True)
    folder = os.path.dirname(lab.name()) + "/"
    truth: dict[str, bytes] = {}
    #: Removed behind the storage's back while S3 had it: by design a file that only S3 has, until told otherwise.
    unknown: set[str] = set()
    for fault, method, after in broken:
        lab.wire.fail(fault, method=method, key=folder, after=after)
    try:
        for turn, (what, basename, number) in enumerate(history):
            name = folder + basename
            content = b"%d" % turn * number
            path = Path(storage.location, name)
            if what == "save":
                assert storage.save(name, ContentFile(content)) == name
                truth[name] = content
                unknown.discard(name)
            elif what == "delete":
                storage.delete(name)
                truth.pop(name, None)
                unknown.discard(name)
            elif what == "rewrite" and name in truth:
                path.write_bytes(content)
                mtime = turn * 1_000_000_007 + 1
                os.utime(path, ns=(mtime, mtime))
                truth[name] = content
            elif what == "remove" and name in truth:
                path.unlink()
                del truth[name]
                unknown.add(name)
            elif what == "backfill":
                # S3 may fail on the listing; files may fail one by one.
                try:
                    Backfill(storage, prefix=folder, workers=2, clock=lambda: 4e9).run(never_stop(), ignore)
                except OSError:
                    continue
            elif what == "repair":
                repaired(storage, grace_over=False)
            elif what == "release":
                lab.wire.release()
            for other in NAMES:
                if folder + other not in unknown:
                    assert seen(storage, folder + other) == truth.get(folder + other), (turn, what)
    finally:
        lab.wire.clear_faults()
    lab.wire.release()
    for name in unknown:
        storage.delete(name)
    repaired(storage)
    Backfill(storage, prefix=folder, workers=2, clock=lambda: 4e9).run(never_stop(), ignore)
    for basename in NAMES:
        assert seen(storage, folder + basename) == truth.get(folder + basename)
    assert_sides_equal(storage, folder)
