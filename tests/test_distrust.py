"""Answers that are not what was asked for, and surroundings that fail: no wrong read and no lost save comes of it."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import TemporaryUploadedFile

from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.engine.objectstore import Source
from django_dualstorage.exceptions import S3Error, S3PreconditionError, S3TransientError
from django_dualstorage.hints import Kind
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.copying import Copying
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.protocol import read as reading
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, hint, ignore, never_stop, on_s3, put_object, repaired
from tests.support.fork import run_in_child


class Page(BaseHTTPRequestHandler):
    """A proxy that answers everything with a page for humans."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<html>We are back soon</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815  the names that http.server looks for

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_page_for_humans_is_no_object(make_storage: MakeStorage, page: str) -> None:
    storage = make_storage("dual", s3={"endpoint_url": page})
    storage.save("a.txt", ContentFile(b"content"))
    with storage.open("a.txt") as file:
        assert file.read() == b"content"
    assert storage.pair.journal.has_hint("a.txt")


def test_page_for_humans_is_no_clean_answer_to_a_write(make_storage: MakeStorage, page: str) -> None:
    storage = make_storage("mirror", s3={"endpoint_url": page})
    storage.save("a.txt", ContentFile(b"content"))
    assert storage.pair.journal.has_hint("a.txt")
    with pytest.raises(S3TransientError, match="not S3's"):
        make_storage("s3", s3={"endpoint_url": page}, allow_overwrite=True).save("b.txt", ContentFile(b"content"))


def test_page_for_humans_does_not_close_the_breaker(make_storage: MakeStorage, page: str) -> None:
    storage = make_storage("dual", s3={"endpoint_url": page}, breaker_failures=1, breaker_interval=0.01)
    storage.save("a.txt", ContentFile(b"content"))
    assert storage.pair.s3.breaker.is_open


def test_part_from_elsewhere_is_refused(make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make_storage("dual")
    storage.save("a.txt", ContentFile(b"0123456789"))
    store: Any = storage.pair.s3.store
    call = store._call

    def without(*ignored: str) -> None:
        """As a server does that ignores a header."""

        def careless(operation: str, key: str, **parameters: Any) -> Any:
            return call(operation, key, **{name: v for name, v in parameters.items() if name not in ignored})

        monkeypatch.setattr(store, "_call", careless)

    key = storage.pair.s3.key("a.txt")
    without("Range")
    with pytest.raises(S3TransientError, match="something else"):
        store.get(key, start=4)
    without("IfMatch")
    with pytest.raises(S3PreconditionError, match="answered with another"):
        store.get(key, etag='"another"')


@pytest.mark.django_db
def test_backfill_ends_when_s3_becomes_the_truth_under_its_hands(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_storage("dual")
    for number in range(3):
        Path(storage.location, f"{number}.txt").write_bytes(b"old")
        os.utime(Path(storage.location, f"{number}.txt"), (1, 1))
    later = make_storage("s3")
    original = Copying.to_s3

    def then_flip(self: Copying, one: Any, policy: Any) -> FileResult:
        result = original(self, one, policy)
        storage._records = later.records  # in the worker, before it takes the next file
        return result

    monkeypatch.setattr(Copying, "to_s3", then_flip)
    with pytest.raises(RefusedError, match="S3 is the truth"):
        Backfill(storage, workers=1).run(never_stop(), ignore)
    assert len(on_s3(storage)) == 1


def test_read_does_not_serve_what_a_repair_removed_meanwhile(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_storage("dual")
    op_id = hint(storage, "a.txt", Kind.SAVE)
    put_object(storage, "a.txt", b"never committed", Metadata={"ds-op": op_id})
    get = storage.pair.s3.get

    def then_repaired(name: str, **options: Any) -> Any:
        body = get(name, **options)
        repaired(storage)
        return body

    monkeypatch.setattr(storage.pair.s3, "get", then_repaired)
    with pytest.raises(FileNotFoundError):
        reading.open_raw(storage.pair, storage.policy, "a.txt")


def test_backfill_of_a_file_that_was_deleted_finishes_the_delete(make_storage: MakeStorage) -> None:
    storage = make_storage("dual", s3_writes="deferred")
    storage.save("a.txt", ContentFile(b"content"))
    repaired(storage)
    storage.delete("a.txt")  # leaves its hint
    result = reconcile(storage.pair, storage.policy, "a.txt", now=0, expected=True)
    assert result.outcome is Outcome.DELETED
    assert_sides_equal(storage)


def test_credentials_that_cannot_be_had_leave_the_disk_readable(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[profile broken]\ncredential_process = /bin/false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    broken = {"access_key": None, "secret_key": None, "session_profile": "broken"}
    storage = make_storage("dual", s3=broken)
    storage.save("a.txt", ContentFile(b"content"))
    with storage.open("a.txt") as file:
        assert file.read() == b"content"
    with pytest.raises(S3Error):
        make_storage("dual-strict", s3=broken).save("b.txt", ContentFile(b"content"))


def test_read_repair_that_cannot_be_noted_does_not_fail_the_read(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_storage("dual", read_repair=True)
    Path(storage.location, "a.txt").write_bytes(b"content")

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert storage.pair.journal.keeps_nanoseconds
    monkeypatch.setattr("django_dualstorage.journal.create_locked", full)
    with storage.open("a.txt") as file:
        assert file.read() == b"content"


def test_upload_from_another_disk_can_be_saved_again_after_a_failure(
    make_storage: MakeStorage, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def across(source: Any, target: Any) -> None:
        if "dualstorage-tmp" in str(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    with TemporaryUploadedFile("a.txt", "text/plain", 7, None) as upload:
        upload.write(b"content")
        upload.flush()
        monkeypatch.setattr(os, "rename", across)
        with pytest.raises(S3Error):
            make_storage("dual-strict", s3={"endpoint_url": page}).save("a.txt", upload)
        assert Path(upload.temporary_file_path()).read_bytes() == b"content"
        assert make_storage("mirror").save("b.txt", upload) == "b.txt"
        assert not Path(upload.temporary_file_path()).exists()
        Path(upload.temporary_file_path()).touch()  # which the upload removes in its turn


def test_descriptor_of_a_file_is_where_the_file_is(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    storage.save("a.txt", ContentFile(b"0123456789"))
    with storage.open("a.txt") as file:
        file.seek(4)
        assert isinstance(file.file, io.BufferedReader)
        assert os.read(file.fileno(), 3) == b"456"


def test_checksum_algorithm_of_the_site_does_not_break_uploads(make_storage: MakeStorage) -> None:
    storage = make_storage("dual", s3={"object_parameters": {"ChecksumAlgorithm": "SHA256"}})
    storage.save("a.txt", ContentFile(b"x" * 10))
    storage.save("b.bin", ContentFile(b"x" * 17 * 1024 * 1024))
    assert_sides_equal(storage)


def test_wrong_checksum_is_refused_by_the_server(make_storage: MakeStorage, tmp_path: Path) -> None:
    storage = make_storage("dual")
    store: Any = storage.pair.s3.store
    (tmp_path / "x").write_bytes(b"content")
    store._digest = lambda body: {"ChecksumCRC32": "AAAAAA=="}
    with open(tmp_path / "x", "rb") as file, pytest.raises(S3Error, match="400"):
        store.put(storage.pair.s3.key("a.txt"), Source(file.fileno(), 7), {}, sending=lambda: None)


def test_storage_that_is_not_configured_does_not_go_by_what_was_certified_for_another(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_storage("dual", alias=None)
    storage.save("a.txt", ContentFile(b"x"))
    known = storage.records.known()
    monkeypatch.setattr(storage.records, "known", lambda: known.__class__(known.phase, certified=True))
    assert storage.url("a.txt") == "/media/a.txt"


def test_subclass_that_opens_without_excl_overwrites(media_root: Path) -> None:
    class Overwriting(DualWriteStorage):
        OS_OPEN_FLAGS = os.O_WRONLY | os.O_TRUNC | os.O_CREAT

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **options: None)
        storage = Overwriting(media_root, phase="filesystem")
    assert [storage.save("a.txt", ContentFile(data)) for data in (b"1", b"2")] == ["a.txt", "a.txt"]
    assert (media_root / "a.txt").read_bytes() == b"2"


@pytest.mark.django_db(transaction=True)
def test_url_can_be_asked_for_inside_an_event_loop(make_storage: MakeStorage) -> None:
    storage = make_storage(None)
    Path(storage.location, "a.txt").write_bytes(b"x")

    async def view() -> str:
        return storage.url("a.txt")

    assert asyncio.run(view()) == "/media/a.txt"


def test_fork_while_the_phase_is_asked_for_leaves_the_child_free(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    assert storage.known
    with storage.records._lock:
        storage.records.forget()
        child = run_in_child(lambda: storage.records.known().phase.value, timeout=20)
    assert child.unwrap() == "dual"
