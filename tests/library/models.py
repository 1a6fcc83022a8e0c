"""File fields as applications have them: inherited, abstract, proxied, with storages given in every way."""

from __future__ import annotations

import uuid

from django.core.files.storage import DefaultStorage, FileSystemStorage, Storage, default_storage
from django.db import models


def chosen_storage() -> Storage:
    """A callable that gives the site's storage, as FileField takes it."""
    return default_storage


class OnlyLiving(models.Manager["Document"]):
    """Leaves rows out, as managers do."""

    def get_queryset(self) -> models.QuerySet[Document]:
        """Without those deleted softly."""
        return super().get_queryset().filter(deleted=False)


class WithFile(models.Model):
    """Abstract: its field belongs to each model made of it."""

    abstract_file = models.FileField(max_length=255, null=True)

    class Meta:
        abstract = True


class Document(WithFile):
    """The default storage, a null and a blank."""

    file = models.FileField(max_length=255, blank=True)
    deleted = models.BooleanField(default=False)

    objects = OnlyLiving()

    class Meta:
        ordering = ("file",)
        base_manager_name = "objects"

    def __str__(self) -> str:
        return str(self.file)


class Proxy(Document):
    """Has no table of its own."""

    class Meta:
        proxy = True


class Special(Document):
    """Has one, and a field there."""

    picture = models.FileField(storage=chosen_storage, max_length=255)


class Keyed(models.Model):
    """A key that is no number, a storage that is lazy."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    file = models.FileField(storage=DefaultStorage(), max_length=255)  # type: ignore[arg-type]  # not a Storage to the stubs

    def __str__(self) -> str:
        return str(self.file)


class Elsewhere(models.Model):
    """Files of another storage: none of ours."""

    file = models.FileField(storage=FileSystemStorage("/nowhere"), max_length=255)

    def __str__(self) -> str:
        return str(self.file)


class Legacy(models.Model):
    """Somebody else's table, which is not there."""

    file = models.FileField(max_length=255)

    class Meta:
        managed = False
        db_table = "legacy"

    def __str__(self) -> str:
        return str(self.file)
