"""The package's own files, which lie among the site's: refused under every name and shown nowhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile

from django_dualstorage.core.names import staged_name
from django_dualstorage.operations.probe import probe
from django_dualstorage.sides.filesystem import Content
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import put_object
from tests.support.moto import MotoServer

PHASES = ("filesystem", "mirror", "dual", "dual-strict", "s3-primary", "s3")
NAMES = (
    ".dualstorage",
    ".dualstorage/",
    ".dualstorage/key",
    ".dualstorage/../.dualstorage/key",
    "./.dualstorage/key",
    "a/../.dualstorage/key",
    ".dualstorage//key",
    staged_name("0" * 32),
    f"a/{staged_name('0' * 32)}",
)
CALLS: dict[str, Callable[[DualWriteStorage, str], object]] = {
    "open": lambda storage, name: storage.open(name),
    "open for writing": lambda storage, name: storage.open(name, "wb"),
    "save": lambda storage, name: storage.save(name, ContentFile(b"x")),
    "delete": lambda storage, name: storage.delete(name),
    "exists": lambda storage, name: storage.exists(name),
    "size": lambda storage, name: storage.size(name),
    "url": lambda storage, name: storage.url(name),
    "listdir": lambda storage, name: storage.listdir(name),
    "get_modified_time": lambda storage, name: storage.get_modified_time(name),
    "get_available_name": lambda storage, name: storage.get_available_name(name),
    "path": lambda storage, name: storage.path(name),
}


@pytest.mark.parametrize("phase", PHASES)
def test_our_own_names_are_refused(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    storage.save("a/b.txt", ContentFile(b"x"))
    for what, call in CALLS.items():
        if what == "path" and not storage.policy.local_truth:
            continue
        for name in NAMES:
            with pytest.raises(SuspiciousFileOperation):
                call(storage, name)
    assert storage.listdir("") == (["a"], [])


@pytest.mark.parametrize("phase", PHASES)
def test_our_own_files_are_never_listed(make_storage: MakeStorage, phase: str) -> None:
    """Nor those that somebody has copied to S3 along with the rest."""
    storage = make_storage(phase)
    storage.save("a/b.txt", ContentFile(b"x"))
    assert probe(storage.pair)
    staged = storage.pair.local.stage("a/c.txt", "0" * 32, Content([b"being written"]))
    for name in (".dualstorage/key", f"a/{staged_name('1' * 32)}", f".dualstorage/hints/ab/{'0' * 30}", "a/.hidden"):
        put_object(storage, name, b"x")
    try:
        assert storage.listdir("") == (["a"], [])
        folders, files = storage.listdir("a")
        sees_s3 = storage.policy.sees_s3_only_files
        assert (folders, sorted(files)) == ([], [".hidden", "b.txt"] if sees_s3 else ["b.txt"])
    finally:
        staged.discard()


def test_the_folder_above_may_have_any_name_like_ours(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    for name in ("a/.dualstorage/b.txt", ".dualstorage2/c.txt", "x.dualstorage-tmp"):
        assert storage.save(name, ContentFile(b"x")) == name


@pytest.mark.parametrize("location", ["media", ""])
def test_keys_that_no_disk_can_hold_are_not_listed(moto: MotoServer, make_storage: MakeStorage, location: str) -> None:
    """On moto: SeaweedFS, which keeps files itself, refuses or changes them."""
    options = {"bucket_name": moto.create_bucket(), "location": location, "endpoint_url": moto.endpoint_url}
    storage = make_storage("s3", provider="minio", s3={**options, "access_key": "a", "secret_key": "b"})
    for name in ("a//b.txt", "a/../c.txt", "a/", "a/d.txt", "/e.txt", "a/f/"):
        put_object(storage, name, b"x")
    assert storage.listdir("a") == (["f"], ["d.txt"])
    assert storage.listdir("") == (["a"], [])
