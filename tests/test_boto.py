"""The engines on the wire: whole objects or none, and an error that says what is known."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
)

from django_dualstorage.engine.boto import MAX_PARTS, BotoStore
from django_dualstorage.engine.concurrency import Controller, Pace
from django_dualstorage.engine.direct import DirectStore
from django_dualstorage.engine.direct_settings import settings_of
from django_dualstorage.engine.objectstore import Condition, Source
from django_dualstorage.engine.retry import Patience, RetryingStore
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3PreconditionError, S3TransientError
from tests.support.proxy import FaultProxy, LostAnswer, Refused, Request, Slow, Status, Truncated
from tests.support.seaweed import SeaweedServer

MIB = 1024 * 1024
DATA = os.urandom(6 * MIB)
TYPED = {"ContentType": "text/x-test"}
#: The smallest parts that S3 takes: five and one MiB.
PARTS = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB}
#: A page for humans, from a proxy between.
ELSEWHERE = Status(200, body=b"<html>welcome")


def nothing() -> None:
    """Nobody notes that a request leaves."""


@pytest.fixture(params=["boto3", "direct"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture
def store(seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy, engine_name: str) -> Callable[..., BotoStore]:
    def make(**options: Any) -> BotoStore:
        client = seaweed.client(endpoint_url=proxy.endpoint_url, connect_timeout=5, read_timeout=10)
        complete = BotoStore(client, seaweed_bucket, **options)
        if engine_name == "boto3":
            return complete
        settings = settings_of(complete)
        assert not isinstance(settings, str), settings
        return DirectStore(complete, settings)

    return make


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Callable[[bytes], Source]]:
    fds: list[int] = []

    def make(data: bytes, size: int | None = None) -> Source:
        (tmp_path / f"source-{len(fds)}").write_bytes(data)
        fds.append(os.open(tmp_path / f"source-{len(fds)}", os.O_RDONLY))
        return Source(fds[-1], len(data) if size is None else size)

    yield make
    for fd in fds:
        os.close(fd)


def body_of(store: BotoStore, key: str) -> bytes:
    body = store.get(key)
    try:
        return body.read()
    finally:
        body.close()


def parts_left(seaweed: SeaweedServer, bucket: str, prefix: str) -> list[str]:
    answer = seaweed.client().list_multipart_uploads(Bucket=bucket, Prefix=prefix)
    return [upload["Key"] for upload in answer.get("Uploads", ()) if upload["Key"].startswith(prefix)]


# -- whole objects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", ["sha256", "md5"])
@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 6 * MIB])
def test_an_object_is_written_whole_in_one_piece_or_in_parts(
    store: Any, source: Any, proxy: FaultProxy, prefix: str, checksum: str, size: int, engine_name: str
) -> None:
    key, engine = f"{prefix}/a.bin", store(checksum=checksum, **PARTS)
    sent: list[int] = []
    written = engine.put(
        key,
        source(DATA[:size]),
        {**TYPED, "CacheControl": "no-store", "Metadata": {"a": "b"}},
        sending=lambda: sent.append(proxy.count()),
    )
    assert written.clean
    # Nothing can land before the one request that makes the object.
    assert sent == [proxy.count() - 1]
    # The checksum is what makes the server look.
    named = "content-md5" if checksum == "md5" else "x-amz-checksum-sha256"
    carrying = [request for request in proxy.requests if request.method == "PUT"]
    assert all(request.headers.get(named) for request in carrying)
    assert all(("amz-sdk-invocation-id" in r.headers) is (engine_name == "boto3") for r in proxy.requests)
    assert [request.method for request in proxy.requests] == (
        ["PUT"] if size < 5 * MIB else ["POST", "PUT", *(["PUT"] if size > 5 * MIB else []), "POST"]
    )
    assert body_of(engine, key) == DATA[:size]
    info = engine.head(key)
    assert info is not None
    assert (info.size, info.content_type, info.metadata["a"]) == (size, "text/x-test", "b")
    if written.etag:
        assert info.etag.strip('"') == written.etag.strip('"')


@pytest.mark.parametrize("options", [{}, PARTS], ids=["one piece", "parts"])
def test_conditions_are_kept(store: Any, source: Any, prefix: str, options: dict[str, int]) -> None:
    key, engine = f"{prefix}/a.bin", store(**options)
    etag = engine.put(key, source(DATA), TYPED, Condition(absent=True), sending=nothing).etag
    for refused in (Condition(absent=True), Condition(etag='"0"')):
        with pytest.raises(S3PreconditionError):
            engine.put(key, source(DATA[::-1]), TYPED, refused, sending=nothing)
    assert body_of(engine, key) == DATA
    etag = engine.head(key).etag
    engine.put(key, source(DATA[::-1]), TYPED, Condition(etag=etag), sending=nothing)
    assert body_of(engine, key) == DATA[::-1]


@pytest.mark.parametrize("options", [{}, PARTS], ids=["one piece", "parts"])
def test_a_file_that_has_shrunk_is_not_sent(
    store: Any, source: Any, proxy: FaultProxy, prefix: str, seaweed: SeaweedServer, seaweed_bucket: str, options: Any
) -> None:
    engine = store(**options)
    sent: list[None] = []
    with pytest.raises(S3Error, match="were expected; nothing sent"):
        engine.put(f"{prefix}/a.bin", source(DATA, 7 * MIB), TYPED, sending=lambda: sent.append(None))
    assert sent == []
    assert engine.head(f"{prefix}/a.bin") is None
    assert parts_left(seaweed, seaweed_bucket, prefix) == []


@pytest.mark.parametrize("fault", [Status(503), Status(403), ELSEWHERE, Refused(), LostAnswer()], ids=repr)
@pytest.mark.parametrize("part", [1, 2])
def test_an_upload_whose_part_fails_leaves_no_parts(
    store: Any,
    source: Any,
    proxy: FaultProxy,
    prefix: str,
    seaweed: SeaweedServer,
    seaweed_bucket: str,
    fault: Any,
    part: int,
) -> None:
    proxy.fail(fault, method="PUT", when=lambda request: request.parameters.get("partNumber") == [str(part)])
    sent: list[None] = []
    with pytest.raises(S3Error):
        store(**PARTS).put(f"{prefix}/a.bin", source(DATA), TYPED, sending=lambda: sent.append(None))
    assert sent == []
    assert parts_left(seaweed, seaweed_bucket, prefix) == []
    assert store().head(f"{prefix}/a.bin") is None


def test_an_upload_that_cannot_even_be_aborted_says_where_the_parts_are(
    store: Any, source: Any, proxy: FaultProxy, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.fail(Status(503), method="PUT", times=None)
    proxy.fail(Status(503), method="DELETE", times=None)
    with pytest.raises(S3TransientError):
        store(**PARTS).put(f"{prefix}/a.bin", source(DATA), TYPED, sending=nothing)
    assert "AbortIncompleteMultipartUpload" in caplog.text


#: Uploads in a daemon thread, as commands do, and ends as soon as a part is being sent.
LEAVING = """
import json, os, sys, threading
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.direct import DirectStore
from django_dualstorage.engine.direct_settings import settings_of
from django_dualstorage.engine.objectstore import Source
from tests.support.endpoint import s3_client

to = json.load(sys.stdin)
store = BotoStore(s3_client(*to["client"]), to["bucket"], **to["parts"])
if to["engine"] == "direct":
    store = DirectStore(store, settings_of(store))
reading = threading.Event()

class Told(Source):
    def read(self, start, size):
        reading.set()
        return super().read(start, size)

source = Told(os.open(to["path"], os.O_RDONLY), to["size"])
threading.Thread(target=store.put, args=[to["key"], source, {}], kwargs={"sending": list}, daemon=True).start()
assert reading.wait(20)
"""


def test_a_process_that_ends_sends_no_further_part(
    seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy, prefix: str, tmp_path: Path, engine_name: str
) -> None:
    proxy.fail(Slow(0.5), method="PUT", times=None)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(8 * 5 * MIB)
    to = {
        "client": [proxy.endpoint_url, seaweed.access_key, seaweed.secret_key],
        "bucket": seaweed_bucket,
        "key": f"{prefix}/a.bin",
        "path": str(tmp_path / "large"),
        "size": 8 * 5 * MIB,
        "parts": PARTS,
        "engine": engine_name,
    }
    python = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", LEAVING], input=json.dumps(to), text=True, env=python, timeout=30, check=True)
    assert 1 <= proxy.count("PUT") <= 3


def test_parts_grow_with_the_file_so_that_there_are_never_too_many() -> None:
    """Five tebibytes, S3's largest object; nothing is sent."""
    sizes: list[int] = []

    class EnoughError(Exception):
        pass

    class Fake(BotoStore):
        def _call(self, operation: str, key: str | None, **parameters: Any) -> dict[str, Any]:
            return {"UploadId": "u"}

        def _fitting(self, operation: str, parameters: Any) -> dict[str, Any]:
            return {}

    class Sparse(Source):
        def read(self, start: int, size: int) -> bytes:
            sizes.append(size)
            raise EnoughError

    engine = Fake(None, "bucket")  # type: ignore[arg-type]
    with pytest.raises(EnoughError):
        engine.put("k", Sparse(-1, 5 * 1024**4), TYPED, sending=nothing)
    assert sizes[0] * MAX_PARTS >= 5 * 1024**4


def test_what_is_corrupted_on_the_way_is_refused_by_the_server(
    seaweed: SeaweedServer, seaweed_bucket: str, prefix: str
) -> None:
    for digest in (
        {"ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"ChecksumSHA256": base64.b64encode(bytes(32)).decode()},
    ):
        with pytest.raises(ClientError):
            seaweed.client().put_object(Bucket=seaweed_bucket, Key=f"{prefix}/x", Body=b"not that", **digest)


# -- parts that are tried again ----------------------------------------------------------------------------------------

THREE_TIMES = Patience(attempts=3, base=0.001)


def part(number: int) -> Callable[[Request], bool]:
    """Whether a request sends this part."""
    return lambda request: request.parameters.get("partNumber") == [str(number)]


class Counted(Pace):
    """Which sizes it was told."""

    def __init__(self) -> None:
        super().__init__(Controller(4))
        self.sizes: list[int] = []

    def end(self, size: int = 0, error: BaseException | None = None) -> None:
        self.sizes.append(size)
        super().end(size, error)


@pytest.mark.parametrize("fault", [Status(503), LostAnswer(), Refused(), ELSEWHERE], ids=repr)
def test_a_command_sends_a_part_that_failed_again_and_nothing_else(
    store: Any, source: Any, proxy: FaultProxy, prefix: str, seaweed: SeaweedServer, seaweed_bucket: str, fault: Any
) -> None:
    key, engine, pace = f"{prefix}/a.bin", store(**PARTS), Counted()
    for number in (1, 2):
        proxy.fail(fault, method="PUT", when=part(number), times=2)
    sent: list[None] = []
    patient = RetryingStore(engine, THREE_TIMES, pace=pace)
    assert patient.put(key, source(DATA), TYPED, sending=lambda: sent.append(None)).clean
    assert (proxy.count("PUT", when=part(1)), proxy.count("PUT", when=part(2))) == (3, 3)
    assert (proxy.count("POST"), proxy.count("DELETE"), len(sent)) == (2, 0, 1)
    assert sorted(pace.sizes) == [0] + 3 * [MIB] + 3 * [5 * MIB]
    assert body_of(engine, key) == DATA
    assert parts_left(seaweed, seaweed_bucket, prefix) == []
    # The engine itself, which the application goes on using, has not become patient.
    proxy.clear()
    proxy.fail(fault, method="PUT", when=part(1))
    with pytest.raises(S3TransientError):
        engine.put(key, source(DATA), TYPED, sending=nothing)
    assert proxy.count("PUT", when=part(1)) == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_a_part_that_fails_for_good_does_not_begin_the_file_anew(
    store: Any, source: Any, proxy: FaultProxy, prefix: str, seaweed: SeaweedServer, seaweed_bucket: str, stopped: bool
) -> None:
    proxy.fail(Status(503), method="PUT", when=part(2), times=None)
    patient = RetryingStore(store(**PARTS), THREE_TIMES, stop=lambda: stopped)
    with pytest.raises(S3TransientError):
        patient.put(f"{prefix}/a.bin", source(DATA), TYPED, sending=nothing)
    assert (proxy.count("PUT", when=part(1)), proxy.count("PUT", when=part(2))) == (1, 1 if stopped else 3)
    assert proxy.count("POST") == 1
    assert parts_left(seaweed, seaweed_bucket, prefix) == []


def test_no_part_is_tried_again_once_another_was_refused(
    store: Any, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    proxy.fail(Status(403), method="PUT", when=part(1))
    proxy.fail(Status(503), method="PUT", when=part(2), times=None)
    patient = RetryingStore(store(**PARTS), Patience(), sleep=lambda seconds: time.sleep(0.5), jitter=lambda *_: 0.1)
    with pytest.raises(S3Error, match="403"):
        patient.put(f"{prefix}/a.bin", source(DATA), TYPED, sending=nothing)
    assert proxy.count("PUT", when=part(2)) <= 1


# -- reading -----------------------------------------------------------------------------------------------------------


def test_an_object_is_read_from_any_byte(store: Any, source: Any, prefix: str) -> None:
    key, engine = f"{prefix}/a.bin", store()
    engine.put(key, source(DATA), TYPED, sending=nothing)
    body = engine.get(key, start=100)
    assert (body.info.size, body.read(10), body.read()) == (len(DATA), DATA[100:110], DATA[110:])
    with pytest.raises(S3PreconditionError):
        engine.get(key, etag='"another"')
    with pytest.raises(S3NotFoundError):
        engine.get(f"{prefix}/never")
    assert engine.head(f"{prefix}/never") is None


def test_an_answer_that_breaks_off_is_an_error(store: Any, source: Any, proxy: FaultProxy, prefix: str) -> None:
    key, engine = f"{prefix}/a.bin", store()
    engine.put(key, source(DATA), TYPED, sending=nothing)
    proxy.fail(Truncated(1000), method="GET")
    with pytest.raises(S3TransientError, match="broke off"):
        engine.get(key).read()


def test_a_404_to_a_head_is_confirmed(store: Any, source: Any, proxy: FaultProxy, prefix: str) -> None:
    key, engine = f"{prefix}/a.bin", store()
    engine.put(key, source(b"there"), TYPED, sending=nothing)
    proxy.fail(Status(404), method="HEAD")
    assert engine.head(key).size == 5
    proxy.fail(Status(403), method="HEAD")
    with pytest.raises(S3Error, match="403"):
        engine.head(key)


def test_a_missing_bucket_is_not_a_missing_object(seaweed: SeaweedServer) -> None:
    engine = BotoStore(seaweed.client(), "no-such-bucket-at-all")
    with pytest.raises(S3Error, match="NoSuchBucket") as failure:
        engine.head("a")
    assert not isinstance(failure.value, S3NotFoundError)


def test_a_long_listing_is_read_to_its_end(
    store: Any, source: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = store()
    keys = [f"{prefix}/{name}" for name in ("a b", "a+b", "a%2Bb", "ü", "sub/x", "sub/y", "z")]
    for key in keys:
        engine.put(key, source(b"x"), TYPED, sending=nothing)
    call = engine._call
    monkeypatch.setattr(engine, "_call", lambda operation, key, **more: call(operation, key, MaxKeys=2, **more))
    assert sorted(listed.key for listed in engine.list_all(f"{prefix}/")) == sorted(keys)
    folders, files = engine.list_folder(f"{prefix}/")
    assert folders == [f"{prefix}/sub/"]
    assert sorted(files) == sorted(key for key in keys if "/sub/" not in key)


def test_new_metadata_is_given_without_sending_the_bytes(
    store: Any, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    key, engine = f"{prefix}/a b+ü.bin", store()
    engine.put(key, source(DATA), {"ContentType": "text/plain"}, sending=nothing)
    info = engine.head(key)
    proxy.clear()
    assert engine.restamp(info, {"ContentType": "text/x-new", "Metadata": {"new": "1"}}, sending=nothing).clean
    assert sum(request.body_bytes for request in proxy.requests) == 0
    found = engine.head(key)
    assert (found.content_type, found.metadata.get("new"), found.size) == ("text/x-new", "1", len(DATA))
    assert hashlib.md5(body_of(engine, key)).digest() == hashlib.md5(DATA).digest()


def test_parameters_that_all_requests_need_are_in_all_requests(
    store: Any, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    engine = store(common={"ExpectedBucketOwner": "123456789012"}, **PARTS)
    key = f"{prefix}/a.bin"
    engine.put(key, source(b"small"), TYPED, sending=nothing)
    engine.put(key, source(DATA), TYPED, sending=nothing)
    engine.restamp(engine.head(key), TYPED, sending=nothing)
    engine.get(key).close()
    list(engine.list_all(prefix))
    engine.list_folder(f"{prefix}/")
    engine.delete(key, sending=nothing)
    proxy.fail(Status(403), method="PUT")
    with pytest.raises(S3Error):
        engine.put(key, source(DATA), TYPED, sending=nothing)
    lacking = [r for r in proxy.requests if r.headers.get("x-amz-expected-bucket-owner") != "123456789012"]
    assert [(request.method, request.query) for request in lacking] == []
