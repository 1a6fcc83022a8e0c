"""What root makes in the journal's folder belongs to the user whose files are around it."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from django_dualstorage.exceptions import JournalError
from django_dualstorage.hints import Kind
from django_dualstorage.inventory import Certified, Inventory
from django_dualstorage.journal import Journal
from django_dualstorage.locks import NameLocks, release
from django_dualstorage.ownership import chown_command, make_file, make_folder
from tests.support.commands import dualstorage
from tests.support.fork import run_in_child

SITE = pwd.getpwnam("nobody")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that another user can reach; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def owners(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path.relative_to(root)): (path.stat().st_uid, path.stat().st_gid) for path in root.rglob("*")}


def use_all(root: Path) -> None:
    """Make every kind of file that there is in the folder, and leave a hint."""
    journal = Journal(str(root))
    journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
    assert journal.volume_id
    assert journal.keeps_nanoseconds
    journal.write_capabilities({})
    release(NameLocks(journal).acquire("a.txt"))
    assert Inventory(journal.root, "here").note([Certified("a.txt", 1, 1, "e")])


@as_root
def test_what_root_makes_is_the_sites(media_root: Path) -> None:
    os.chown(media_root, SITE.pw_uid, SITE.pw_gid)
    use_all(media_root)
    found = owners(media_root)
    assert set(found.values()) == {(SITE.pw_uid, SITE.pw_gid)}
    assert {".dualstorage/key", ".dualstorage/volume", ".dualstorage/new", ".dualstorage/capabilities.json"} <= set(
        found
    )
    assert {"locks", "hints"} <= {Path(name).parent.name for name in found}


@as_root
def test_what_root_makes_in_its_own_folder_is_roots(media_root: Path) -> None:
    use_all(media_root)
    assert set(owners(media_root).values()) == {(0, os.getegid())}


@as_root
@pytest.mark.django_db
def test_an_upload_after_a_first_command_of_root(default_options: dict[str, Any], open_to_all: Path) -> None:
    default_options["location"] = str(open_to_all)
    storage = storages["default"]
    os.chown(open_to_all, SITE.pw_uid, SITE.pw_gid)
    (open_to_all / "a.txt").write_bytes(b"content")
    assert dualstorage("backfill").code == 0

    def upload() -> Any:
        os.setgid(SITE.pw_gid)
        os.setuid(SITE.pw_uid)
        return storage.save("b.txt", ContentFile(b"content"))

    assert run_in_child(upload).unwrap() == "b.txt"


@as_root
def test_a_link_that_the_sites_user_has_planted_is_not_given_away(media_root: Path, tmp_path: Path) -> None:
    roots = tmp_path / "roots"
    roots.touch()
    os.chown(media_root, SITE.pw_uid, SITE.pw_gid)
    (media_root / "planted").symlink_to(roots)
    with pytest.raises(FileExistsError):
        make_file(str(media_root / "planted"), os.O_RDWR, 0o600)
    with pytest.raises(FileExistsError):
        make_folder(str(media_root / "planted"), 0o700)
    assert roots.stat().st_uid == 0


@as_root
def test_who_is_not_let_in_is_told_the_command(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(media_root, SITE.pw_uid, SITE.pw_gid)
    journal = Journal(str(media_root))
    journal.demand_access()  # there is none yet

    def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        with pytest.raises(JournalError, match="Permission denied"):
            journal.demand_access()
    assert chown_command(journal.root) == f"chown -R {SITE.pw_uid}:{SITE.pw_gid} {journal.root}"


def test_where_the_files_are_roots_it_is_the_process_that_asks(tmp_path: Path) -> None:
    assert chown_command("/.dualstorage") == f"chown -R {os.geteuid()}:{os.getegid()} /.dualstorage"
    assert chown_command(str(tmp_path / "gone" / "x")).startswith(f"chown -R {os.geteuid()}:")
