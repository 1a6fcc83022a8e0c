"""Times: Django's own, and the same on both sides."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_dualstorage.core.stamp import Stamp
from tests.conftest import MakeStorage
from tests.support.asserts import put_object


@pytest.fixture(params=["Europe/Berlin", "America/Caracas", "UTC"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


WINTER, SUMMER = 1_700_000_000, 1_690_000_000


@pytest.mark.usefixtures("_zone")
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("when", [WINTER, SUMMER])
def test_times_are_djangos_in_summer_and_in_winter(
    make_storage: MakeStorage, media_root: Path, use_tz: bool, when: int
) -> None:
    (media_root / "a.txt").touch()
    os.utime(media_root / "a.txt", (when + 1, when))
    django = FileSystemStorage(media_root)
    with override_settings(USE_TZ=use_tz):
        storage = make_storage("dual")
        assert storage.get_modified_time("a.txt") == django.get_modified_time("a.txt")
        assert storage.get_accessed_time("a.txt") == django.get_accessed_time("a.txt")
        assert storage.get_created_time("a.txt") == django.get_created_time("a.txt")


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_the_same_on_both_sides(make_storage: MakeStorage, use_tz: bool) -> None:
    dual, s3 = make_storage("dual"), make_storage("s3-primary")
    name = dual.save("a.txt", ContentFile(b"x"))
    with override_settings(USE_TZ=use_tz):
        assert dual.get_modified_time(name) == s3.get_modified_time(name)
        os.remove(dual.path(name))
        assert dual.get_modified_time(name) == s3.get_modified_time(name)


def test_an_unstamped_object_is_as_old_as_s3_says(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    put_object(storage, "a.txt", b"x")
    assert abs(storage.get_modified_time("a.txt") - datetime.now(timezone.utc)).total_seconds() < 5


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mtime_ns=st.integers(0, 4_000_000_000_000_000_000))
def test_a_stamp_is_the_time_that_python_reads_from_the_disk(tmp_path: Path, mtime_ns: int) -> None:
    path = tmp_path / "file"
    path.touch()
    os.utime(path, ns=(mtime_ns, mtime_ns))
    assert Stamp(0, path.stat().st_mtime_ns).seconds == os.path.getmtime(path)
