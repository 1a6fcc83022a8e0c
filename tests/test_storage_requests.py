"""What each call costs, counted on the wire."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile

from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import put_object
from tests.support.lab import Lab
from tests.support.proxy import FaultProxy, Status, Truncated
from tests.support.seaweed import SeaweedServer

DATA = os.urandom(700_000)


@pytest.fixture(scope="module")
def lab(seaweed: SeaweedServer, seaweed_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server that a probe has looked at."""
    with FaultProxy(seaweed.endpoint_url) as wire:
        lab = Lab(seaweed, seaweed_bucket, tmp_path_factory.mktemp("media"), wire)
        assert probe(lab.storage("dual").pair)
        yield lab


@pytest.fixture(scope="module")
def unprobed(seaweed: SeaweedServer, seaweed_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server of which nothing is known."""
    with FaultProxy(seaweed.endpoint_url) as wire:
        yield Lab(seaweed, seaweed_bucket, tmp_path_factory.mktemp("media"), wire)


@pytest.fixture(autouse=True)
def _healed(lab: Lab, unprobed: Lab) -> None:
    for one in (lab, unprobed):
        one.wire.clear_faults()
        one.wire.clear()


def methods(lab: Lab) -> list[str]:
    """The requests since the last look."""
    found = [request.method for request in lab.wire.requests]
    lab.wire.clear()
    return found


def saved(storage: DualWriteStorage, lab: Lab, content: bytes = DATA) -> str:
    name = storage.save(lab.name(), ContentFile(content))
    lab.wire.clear()
    return name


DUAL = ("dual", "dual-strict")


@pytest.mark.parametrize("phase", [*DUAL, "mirror", "s3-primary", "s3"])
def test_save_is_one_request(lab: Lab, phase: str) -> None:
    lab.storage(phase).save(lab.name(), ContentFile(DATA))
    assert methods(lab) == ["PUT"]


def test_save_where_nobody_has_probed_asks_for_the_name_first(unprobed: Lab) -> None:
    """A HEAD that says 404 could mean a missing bucket, so a GET has to confirm it."""
    unprobed.storage("dual").save(unprobed.name(), ContentFile(DATA))
    assert methods(unprobed) == ["HEAD", "GET", "PUT"]
    unprobed.storage("mirror").save(unprobed.name(), ContentFile(DATA))
    assert methods(unprobed) == ["PUT"]


def test_save_of_a_name_that_the_disk_has_sends_nothing_for_it(lab: Lab) -> None:
    storage = lab.storage("dual")
    name = saved(storage, lab)
    assert storage.save(name, ContentFile(b"other")) != name
    assert methods(lab) == ["PUT"]


def test_save_of_a_name_that_only_s3_has_is_refused_there(lab: Lab) -> None:
    storage, name = lab.storage("dual"), lab.name()
    put_object(storage, name, b"only there")
    lab.wire.clear()
    assert storage.save(name, ContentFile(b"other")) != name
    assert [request.status for request in lab.wire.seen("PUT")] == [412, 200]


@pytest.mark.parametrize("phase", DUAL)
def test_open_and_read_is_one_request(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase)
    name = saved(storage, lab)
    with storage.open(name) as file:
        assert file.size == len(DATA)
        assert file.read() == DATA
    assert methods(lab) == ["GET"]


@pytest.mark.parametrize("phase", DUAL)
def test_questions_about_a_local_file_cost_nothing(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase)
    name = saved(storage, lab)
    assert storage.exists(name)
    assert storage.size(name) == len(DATA)
    assert storage.get_modified_time(name)
    assert storage.url(name)
    assert storage.path(name)
    assert methods(lab) == []


@pytest.mark.parametrize("phase", ["filesystem", "mirror", *DUAL, "s3-primary", "s3"])
def test_url_costs_nothing(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase)
    for name in ("never-saved.txt", "a/b.txt", ""):
        assert storage.url(name)
    assert methods(lab) == []


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
def test_questions_where_s3_is_the_truth_are_one_request(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase)
    name = saved(storage, lab)
    for ask in (storage.exists, storage.size, storage.get_modified_time):
        assert ask(name)
        assert methods(lab) == ["HEAD"]


@pytest.mark.parametrize("phase", [*DUAL, "mirror", "s3-primary", "s3"])
def test_delete_is_one_request(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase)
    name = saved(storage, lab)
    storage.delete(name)
    assert methods(lab) == ["DELETE"]


def test_listing_is_one_request(lab: Lab) -> None:
    storage = lab.storage("dual")
    name = saved(storage, lab)
    assert storage.listdir(os.path.dirname(name))[1] == ["a.txt"]
    assert methods(lab) == ["GET"]


def test_deferred_writes_cost_nothing(lab: Lab) -> None:
    storage = lab.storage("dual", s3_writes="deferred")
    name = storage.save(lab.name(), ContentFile(DATA))
    storage.delete(name)
    assert methods(lab) == []


def test_the_disk_alone_never_asks_s3(lab: Lab) -> None:
    storage = lab.storage("filesystem")
    name = storage.save(lab.name(), SimpleUploadedFile("a.txt", DATA))
    with storage.open(name) as file:
        assert file.read() == DATA
    assert storage.exists(name)
    storage.listdir("")
    storage.delete(name)
    assert methods(lab) == []


# -- one answer, read in any order -------------------------------------------------------------------------------------


def test_seeking_in_a_certified_file_goes_on_from_the_disk(lab: Lab) -> None:
    storage = lab.storage("dual")
    name = saved(storage, lab)
    with storage.open(name) as file:
        assert file.read(10) == DATA[:10]
        file.seek(500_000)
        assert file.read(10) == DATA[500_000:500_010]
        file.seek(0)
        assert file.read() == DATA
    assert methods(lab) == ["GET"]


def test_a_certified_file_has_the_descriptor_of_the_disk(lab: Lab) -> None:
    storage = lab.storage("dual")
    name = saved(storage, lab)
    with storage.open(name) as file:
        assert os.path.samestat(os.fstat(file.fileno()), os.stat(storage.path(name)))


@pytest.mark.parametrize("at", [0, 1, 65_536, len(DATA) - 1])
def test_an_answer_that_breaks_off_is_finished_by_the_disk(lab: Lab, at: int) -> None:
    storage = lab.storage("dual")
    name = saved(storage, lab)
    storage.pair.counters.clear()
    lab.wire.fail(Truncated(at), method="GET")
    with storage.open(name) as file:
        assert file.read() == DATA
    assert methods(lab) == ["GET"]
    assert storage.pair.counters["read.fallback.broken"] == 1


def test_the_version_that_was_opened_is_read_to_its_end_though_it_was_replaced(lab: Lab) -> None:
    storage = lab.storage("dual", allow_overwrite=True)
    name = saved(storage, lab)
    lab.wire.fail(Truncated(1000), method="GET")
    with storage.open(name) as file:
        storage.save(name, ContentFile(b"another"))
        assert file.read() == DATA


@pytest.mark.parametrize("only_on_s3", [True, False], ids=["only on S3", "s3-primary"])
def test_a_broken_answer_is_asked_for_from_where_it_broke(lab: Lab, only_on_s3: bool) -> None:
    storage = lab.storage("dual" if only_on_s3 else "s3-primary")
    name = saved(storage, lab)
    if only_on_s3:
        Path(lab.root, name).unlink()
    lab.wire.fail(Truncated(300_000), method="GET")
    with storage.open(name) as file:
        assert file.size == len(DATA)
        assert file.read(100_000) == DATA[:100_000]
        assert file.read() == DATA[100_000:]
    first, second = lab.wire.seen("GET")
    assert "range" not in first.headers
    start = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 300_000
    assert second.headers["if-match"]
    assert second.status == 206


def test_seeking_on_s3_is_a_request_from_there(lab: Lab) -> None:
    storage = lab.storage("s3")
    name = saved(storage, lab)
    with storage.open(name) as file:
        assert file.seek(-10, os.SEEK_END) == len(DATA) - 10
        assert file.read() == DATA[-10:]
        file.seek(0)
        file.seek(600_000)
        assert file.read(4) == DATA[600_000:600_004]
        assert file.read(4) == DATA[600_004:600_008]
    ranges = [request.headers.get("range") for request in lab.wire.seen("GET")]
    assert ranges == [None, f"bytes={len(DATA) - 10}-", "bytes=600000-"]


def test_seeking_a_little_ahead_on_s3_goes_on_with_the_same_answer(lab: Lab) -> None:
    storage = lab.storage("s3")
    name = saved(storage, lab)
    with storage.open(name) as file:
        assert file.read(10) == DATA[:10]
        file.seek(100_000)
        assert file.read(10) == DATA[100_000:100_010]
    assert methods(lab) == ["GET"]


def test_a_little_ahead_may_be_where_the_answer_breaks(lab: Lab) -> None:
    storage = lab.storage("s3")
    name = saved(storage, lab)
    lab.wire.fail(Truncated(80_000), method="GET")
    with storage.open(name) as file:
        assert file.read(10) == DATA[:10]
        file.seek(120_000)
        assert file.read() == DATA[120_000:]


def test_resuming_is_tried_again_when_it_fails(lab: Lab) -> None:
    storage = lab.storage("s3")
    name = saved(storage, lab)
    lab.wire.fail(Truncated(300_000), method="GET")
    lab.wire.fail(Status(503), method="GET", when=lambda request: "range" in request.headers)
    with storage.open(name) as file:
        assert file.read() == DATA
    assert [request.status for request in lab.wire.seen("GET")] == [200, 503, 206]


def test_an_object_of_another_size_than_its_stamp_is_not_served(lab: Lab) -> None:
    storage = lab.storage("dual")
    name = saved(storage, lab, b"right")
    stamp = os.stat(storage.path(name))
    put_object(storage, name, b"tampered with", Metadata={"ds-stamp": f"{stamp.st_size}:{stamp.st_mtime_ns}"})
    with storage.open(name) as file:
        assert file.read() == b"right"


def test_an_empty_file_is_read(lab: Lab) -> None:
    for phase in ("dual", "s3-primary"):
        storage = lab.storage(phase)
        name = saved(storage, lab, b"")
        with storage.open(name) as file:
            assert file.read() == b""
            assert file.size == 0
