"""Which files the database knows."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.db import OperationalError, connection, models
from django.test import override_settings
from django.utils.functional import empty

from django_dualstorage.core.differences import Difference
from django_dualstorage.operations import references as module
from django_dualstorage.operations import spool
from django_dualstorage.operations.references import fields_of, is_same, referenced_names, references
from django_dualstorage.operations.verify import Verification, Verify, Wanted
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import ignore, never_stop, on_s3
from tests.support.backfills import write
from tests.support.commands import dualstorage


@pytest.fixture
def library(default_storage: DualWriteStorage, transactional_db: None) -> Iterator[ModuleType]:
    """The app, with its tables but one."""
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "tests.library"]):
        from tests.library import models as library

        # It is imported once, for all tests; each has a default storage of its own.
        library.Keyed._meta.get_field("file").storage._wrapped = empty  # type: ignore[attr-defined]
        tables: list[type[models.Model]] = [library.Document, library.Special, library.Keyed, library.Elsewhere]
        with connection.schema_editor() as editor:
            for model in tables:
                editor.create_model(model)
        yield library
        with connection.schema_editor() as editor:
            for model in reversed(tables):
                editor.delete_model(model)


def test_each_field_once_where_its_table_has_it(library: ModuleType, default_storage: DualWriteStorage) -> None:
    assert sorted((model.__name__, field.name) for model, field in fields_of(default_storage)) == [
        ("Document", "abstract_file"),
        ("Document", "file"),
        ("Keyed", "file"),
        ("Legacy", "file"),
        ("Special", "picture"),
    ]


def test_every_row_whatever_managers_leave_out(library: ModuleType, default_storage: DualWriteStorage) -> None:
    library.Document.objects.create(file="b.txt", abstract_file=None)
    library.Document.objects.create(file="", abstract_file="a.txt")
    library.Document.objects.create(file="gone.txt", deleted=True)
    special = library.Special.objects.create(file="special.txt", picture="picture.png")
    keyed = library.Keyed.objects.create(file="keyed.txt")
    library.Elsewhere.objects.create(file="elsewhere.txt")
    unread: dict[str, str] = {}
    found = list(references(default_storage, unread.__setitem__))
    assert sorted(one.name for one in found) == [
        "a.txt",
        "b.txt",
        "gone.txt",
        "keyed.txt",
        "picture.png",
        "special.txt",
    ]
    assert ("library.Special", special.pk, "picture", "picture.png") in found
    assert ("library.Keyed", keyed.pk, "file", "keyed.txt") in found
    assert list(unread) == ["library.Legacy"]
    assert "legacy" in unread["library.Legacy"]


def test_models_that_cannot_be_read_are_logged(
    library: ModuleType, default_storage: DualWriteStorage, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(referenced_names(default_storage)) == []
    assert "library.Legacy" in caplog.text


def test_names_are_those_of_files(library: ModuleType, default_storage: DualWriteStorage) -> None:
    for name in (f"{default_storage.location}/absolute.txt", "./dot.txt", "a//b.txt", "../outside.txt", ".hidden"):
        library.Document.objects.create(file=name)
    names = set(referenced_names(default_storage, lambda model, why: None))
    assert names == {"absolute.txt", "dot.txt", "a/b.txt", "../outside.txt", ".hidden"}


@pytest.mark.parametrize("pages", [0, 1])
def test_error_in_the_middle_of_a_model_ends_the_command(
    library: ModuleType, default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    for number in range(5):
        library.Keyed.objects.create(file=write(default_storage, f"{number}.txt").name)
    asked: list[str] = []

    def failing(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "library_keyed" in sql:
            asked.append(sql)
            if len(asked) > pages:
                raise OperationalError("the server went away")
        return execute(sql, params, many, context)

    for dry in ([], ["--dry-run"]):
        asked.clear()
        with connection.execute_wrapper(failing):
            ran = dualstorage("backfill", "--referenced-only", *dry)
        assert ran.code == 1
        assert "the rows of library.Keyed could not be read" in ran.err
        assert "the server went away" in ran.err
        assert on_s3(default_storage) == {}
    assert dualstorage("backfill", "--referenced-only").code == 0
    assert len(on_s3(default_storage)) == 5


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5])
def test_pages_join_whatever_their_number(
    library: ModuleType, default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    for number in range(rows):
        library.Keyed.objects.create(file=f"{number}.txt")
    found = list(referenced_names(default_storage, lambda model, why: None))
    assert sorted(found) == [f"{number}.txt" for number in range(rows)]


def test_rows_cost_no_memory(library: ModuleType, default_storage: DualWriteStorage) -> None:
    rows = 20_000
    library.Document.objects.bulk_create(
        (library.Document(file=f"{number:0200}.txt") for number in range(rows)), batch_size=5000
    )
    names = referenced_names(default_storage, lambda model, why: None)
    tracemalloc.start()
    try:
        assert sum(1 for _ in names) == rows
        assert tracemalloc.get_traced_memory()[1] < 3 * 1024 * 1024  # the names alone are 5 MiB
    finally:
        tracemalloc.stop()


def test_another_storage_of_the_same_folder_is_this_one(default_storage: DualWriteStorage) -> None:
    from django.core.files.storage import FileSystemStorage, InMemoryStorage

    assert is_same(default_storage, default_storage)
    assert is_same(FileSystemStorage(default_storage.location), default_storage)
    assert not is_same(FileSystemStorage("/elsewhere"), default_storage)
    assert not is_same(InMemoryStorage(), default_storage)


# -- verify ------------------------------------------------------------------------------------------------------------


def verified(storage: DualWriteStorage, **wanted: Any) -> Verification:
    return Verify(storage, Wanted(workers=2, **wanted)).run(never_stop(), ignore)


def findings(result: Verification) -> list[tuple[Difference, str]]:
    others = (one for one in result.found() if one.kind is not Difference.MISSING_ON_S3)
    found: list[tuple[Difference, str]] = sorted((one.kind, one.name) for one in others)
    result.close()
    return found


def test_rows_and_files_that_lack_each_other(library: ModuleType, default_storage: DualWriteStorage) -> None:
    with connection.schema_editor() as editor:
        editor.create_model(library.Legacy)
    for name in ("known.txt", "unknown.txt", "young/unknown.txt"):
        write(default_storage, name)
    (young := write(default_storage, "young.txt")).write_bytes(b"content")
    assert young.exists()
    library.Document.objects.create(file="known.txt")
    library.Document.objects.create(file="lost.txt")
    library.Document.objects.create(file="young/lost.txt")
    result = verified(default_storage)
    (lost, _) = result.found(Difference.ROW_WITHOUT_FILE)
    assert (
        lost.detail == f"named by library.Document {lost.detail.split()[3].strip(',')}, field file; neither side has it"
    )
    assert findings(result) == [
        (Difference.FILE_WITHOUT_ROW, "unknown.txt"),
        (Difference.FILE_WITHOUT_ROW, "young/unknown.txt"),
        (Difference.ROW_WITHOUT_FILE, "lost.txt"),
        (Difference.ROW_WITHOUT_FILE, "young/lost.txt"),
    ]
    assert findings(verified(default_storage, prefix="young/")) == [
        (Difference.FILE_WITHOUT_ROW, "young/unknown.txt"),
        (Difference.ROW_WITHOUT_FILE, "young/lost.txt"),
    ]
    assert findings(verified(default_storage, database=False)) == []
    with connection.schema_editor() as editor:
        editor.delete_model(library.Legacy)


def test_row_with_an_absolute_name_is_accused_like_any_other(
    library: ModuleType, default_storage: DualWriteStorage
) -> None:
    write(default_storage, "there.txt")
    for name in ("there.txt", "lost.txt", "a//lost.txt"):
        library.Document.objects.create(file=f"{default_storage.location}/{name}")
    assert findings(verified(default_storage)) == [
        (Difference.ROW_WITHOUT_FILE, "a/lost.txt"),
        (Difference.ROW_WITHOUT_FILE, "lost.txt"),
    ]


def test_row_that_names_a_path_outside_is_accused_though_something_is_there(
    library: ModuleType, default_storage: DualWriteStorage, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"content")
    names = [str(outside), os.path.relpath(outside, default_storage.location), default_storage.location]
    for name in names:
        library.Document.objects.create(file=name)
    result = verified(default_storage)
    details = [one.detail for one in result.found(Difference.ROW_WITHOUT_FILE)]
    assert all("is no name of a file below MEDIA_ROOT" in detail for detail in details)
    assert findings(result) == sorted((Difference.ROW_WITHOUT_FILE, name) for name in names)


def test_files_are_not_called_unknown_where_a_model_cannot_be_read(
    library: ModuleType, default_storage: DualWriteStorage
) -> None:
    write(default_storage, "unknown.txt")
    library.Document.objects.create(file="lost.txt")
    result = verified(default_storage)
    assert "library.Legacy" in result.unread
    assert "library.Legacy" in result.remarks[-1]
    assert findings(result) == [(Difference.ROW_WITHOUT_FILE, "lost.txt")]


def test_rows_that_could_not_be_read_are_not_called_fine(
    library: ModuleType, default_storage: DualWriteStorage
) -> None:
    default_storage.save("a.txt", ContentFile(b"content"))
    for quiet in ("1", "0"):
        ran = dualstorage("verify", "-v", quiet)
        assert ran.code == 1
        assert "The rows of library.Legacy could not be read and were not judged." in ran.out
        assert "Nothing is wrong with what was judged" in ran.out
    assert dualstorage("verify", "--no-database").code == 0


def test_row_is_not_accused_of_what_has_changed_since(
    library: ModuleType, default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = library.Document.objects.create(file="came.txt")
    gone = library.Document.objects.create(file="gone.txt")
    came_on_s3 = library.Document.objects.create(file="s3.txt")
    index = spool.Spool.index

    def meanwhile(self: Any) -> None:
        index(self)
        write(default_storage, came.file.name)
        default_storage.save(came_on_s3.file.name, ContentFile(b"content"))
        default_storage.pair.local.unlink(came_on_s3.file.name)
        library.Document.objects.filter(pk=gone.pk).delete()

    calls: list[int] = []

    def indexed(self: Any) -> None:
        calls.append(1)
        # The first is after the files were seen, the second after the rows were read.
        (meanwhile if len(calls) == 2 else index)(self)

    monkeypatch.setattr(spool.Spool, "index", indexed)
    assert findings(verified(default_storage)) == []


def test_without_a_field_nothing_is_said_of_files(default_storage: DualWriteStorage, db: None) -> None:
    write(default_storage, "a.txt")
    result = verified(default_storage)
    assert "No FileField uses this storage" in result.remarks[-1]
    assert findings(result) == []
