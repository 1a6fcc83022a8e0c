"""The rule by which an object is brought to what the disk says, case by case."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from django_dualstorage.core.compare import Action, is_remnant, reconcile_action
from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.stamp import Stamp, stamp_metadata

LOCAL = Stamp(10, 1234)
#: Of the same size at another time, and of another size at the same time.
OLDER, SHORTER = Stamp(10, 1233), Stamp(9, 1234)


def remote(stamp: Stamp | None, size: int, op_id: str | None = "op") -> ObjectInfo:
    metadata = stamp_metadata(stamp, op_id) if stamp and op_id else {}
    return ObjectInfo("key", size, '"etag"', datetime.now(timezone.utc), metadata=metadata)


CASES = [
    # on the disk, on S3, the action whatever hints there are
    (LOCAL, None, Action.UPLOAD),
    (LOCAL, remote(LOCAL, 10), Action.NOTHING),
    (LOCAL, remote(LOCAL, 9), Action.REPLACE),  # torn, whatever its stamp says
    (LOCAL, remote(LOCAL, 11), Action.REPLACE),
    (LOCAL, remote(OLDER, 10), Action.REPLACE),
    (LOCAL, remote(SHORTER, 10), Action.REPLACE),
    (LOCAL, remote(SHORTER, 9), Action.REPLACE),
    (LOCAL, remote(None, 10), Action.ADOPT),
    (LOCAL, remote(None, 9), Action.REPLACE),
    (LOCAL, remote(None, 0), Action.REPLACE),
    (Stamp(0, 1), remote(None, 0), Action.ADOPT),
    (None, None, Action.NOTHING),
]


@pytest.mark.parametrize(("local", "found", "action"), CASES)
def test_what_the_disk_says_goes(local: Stamp | None, found: ObjectInfo | None, action: Action) -> None:
    for remnant in (False, True):
        assert reconcile_action(local, found, remnant=remnant) is action


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("own_ops", [(), ("op",), ("other",), ("other", "op")])
def test_an_object_without_a_file_goes_only_if_a_hint_says_so(
    stamped: bool, deleted: bool, own_ops: tuple[str, ...]
) -> None:
    found = remote(LOCAL if stamped else None, 10)
    expected = Action.DELETE if deleted or (stamped and "op" in own_ops) else Action.NOTHING
    remnant = is_remnant(found, deleted=deleted, own_ops=own_ops)
    assert reconcile_action(None, found, remnant=remnant) is expected
