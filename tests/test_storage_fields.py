"""A model with a file: what an application does all day, in every phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, models
from django.test.utils import isolate_apps

from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal

PHASES = ("filesystem", "mirror", "dual", "dual-strict", "s3-primary", "s3")


@pytest.fixture(params=PHASES)
def storage(request: pytest.FixtureRequest, make_storage: MakeStorage) -> DualWriteStorage:
    return make_storage(request.param)


@pytest.fixture
def document(storage: DualWriteStorage, transactional_db: None) -> Iterator[Any]:
    """The model class, with a table."""
    with isolate_apps("django_dualstorage"):

        class Document(models.Model):
            file = models.FileField(storage=storage, upload_to="docs", max_length=40)

            class Meta:
                app_label = "dualstorage"

            def __str__(self) -> str:
                return str(self.file)

        with connection.schema_editor() as editor:
            editor.create_model(Document)
        yield Document
        with connection.schema_editor() as editor:
            editor.delete_model(Document)


def test_a_file_is_saved_read_replaced_and_deleted(document: Any, storage: DualWriteStorage) -> None:
    one = document.objects.create(file=SimpleUploadedFile("my file.txt", b"first", content_type="text/x-own"))
    assert one.file.name == "docs/my_file.txt"
    again = document.objects.get(pk=one.pk)
    assert (again.file.read(), again.file.size) == (b"first", 5)
    assert again.file.url
    again.file.close()

    other = document.objects.create(file=ContentFile(b"second", name="my file.txt"))
    assert other.file.name != one.file.name
    assert len(other.file.name) <= 40

    again.file.save("my file.txt", ContentFile(b"third"))
    old, new = one.file.name, document.objects.get(pk=one.pk).file.name
    assert new not in {old, other.file.name}
    with storage.open(old) as file:
        assert file.read() == b"first"  # Django leaves the old file

    again.file.delete()
    assert not storage.exists(new)
    assert document.objects.get(pk=one.pk).file.name == ""
    if storage.policy.writes_both:
        assert_sides_equal(storage)


def test_a_field_file_is_opened_in_any_mode_and_again(document: Any) -> None:
    one = document.objects.create(file=ContentFile(b"text", name="a.txt"))
    with one.file.open("rb") as file:
        assert file.read() == b"text"
    with one.file.open("a") as file:
        file.write(" and more")
    with one.file.open("r") as file:
        assert file.read() == "text and more"
    with one.file.open("wb") as file:
        file.write(b"new")
    fresh = document.objects.get(pk=one.pk)
    with fresh.file as file:
        assert list(file.chunks(2)) == [b"ne", b"w"]


def test_a_missing_file_is_told(document: Any, storage: DualWriteStorage) -> None:
    one = document.objects.create(file="docs/never.txt")
    with pytest.raises(FileNotFoundError):
        one.file.open()
    with pytest.raises(FileNotFoundError):
        _ = one.file.size
    one.file.delete(save=False)


def test_a_name_that_is_too_long_for_the_field_is_cut(document: Any) -> None:
    first = document.objects.create(file=ContentFile(b"1", name="x" * 100 + ".txt"))
    second = document.objects.create(file=ContentFile(b"2", name="x" * 100 + ".txt"))
    assert len(first.file.name) <= 40
    assert len(second.file.name) <= 40
    assert first.file.name != second.file.name
