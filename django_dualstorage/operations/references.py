"""Which files the database knows: every FileField of every app whose storage is this one."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.apps import apps
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError, connections, models, router
from django.utils.functional import LazyObject, empty

from django_dualstorage.storage import DualWriteStorage

logger = logging.getLogger("django_dualstorage.references")

_PAGE = 2_000

OnUnread = Callable[[str, str], None]


class Reference(NamedTuple):
    """One row's word for one file."""

    #: ``app.Model``
    model: str
    pk: Any
    field: str
    #: Relative to MEDIA_ROOT; as the row has it, if that is no name below MEDIA_ROOT.
    name: str


def _log(model: str, why: str) -> None:
    logger.warning("The rows of %s could not be read, so the files that they name are not known: %s", model, why)


def referenced_names(storage: DualWriteStorage, on_missing: OnUnread = _log) -> Iterator[str]:
    """The name of each file that a row names, once for each row.

    A model whose table is not there names none, and is told to ``on_missing``. Any other error of the database leaves
    names out that nobody would miss, so it is raised: DatabaseError.
    """
    for model, field in fields_of(storage):
        read = False
        try:
            for reference in _of_field(storage, model, field):
                read = True
                yield reference.name
        except DatabaseError as error:
            label, why = model._meta.label, str(error).strip()
            if read or not _lacks_table(model):
                raise DatabaseError(
                    f"the rows of {label} could not be read, so the files that they name are not known ({why})"
                ) from error
            on_missing(label, why)


def references(storage: DualWriteStorage, on_unread: OnUnread = _log) -> Iterator[Reference]:
    """Every row's word for a file of this storage.

    Read in pages along the primary key, of the two columns needed, so that the memory is bounded on every database,
    also on those whose drivers fetch a whole answer at once. A model whose rows cannot be read (no table, say) is told
    to ``on_unread``, by its label and the reason, and left out.
    """
    for model, field in fields_of(storage):
        try:
            yield from _of_field(storage, model, field)
        except DatabaseError as error:
            on_unread(model._meta.label, str(error).strip())


def still_says(storage: DualWriteStorage, reference: Reference) -> bool:
    """Whether the row still names that file, now. Raises DatabaseError."""
    model = apps.get_model(reference.model)
    found = _rows(model).filter(pk=reference.pk).values_list(reference.field, flat=True).first()
    return bool(found) and _relative(storage, str(found)) == reference.name


def is_outside(storage: DualWriteStorage, name: str) -> bool:
    """Whether no file below MEDIA_ROOT can have the name: it leads out, or to what is this package's own."""
    try:
        return not storage.relative_name(name)
    except SuspiciousFileOperation:
        return True


def fields_of(storage: DualWriteStorage) -> Iterator[tuple[type[models.Model], models.FileField]]:
    """The fields of all apps whose files lie on this storage, each in the model whose table has it.

    A field of an abstract model belongs to each model made of it, one of a parent to the parent alone, and a proxy
    has none of its own.
    """
    for model in apps.get_models(include_auto_created=True):
        if model._meta.proxy or model._meta.swapped:
            continue
        for field in model._meta.local_concrete_fields:
            if isinstance(field, models.FileField) and is_same(field.storage, storage):
                yield model, field


def is_same(one: Any, storage: DualWriteStorage) -> bool:
    """Whether a field's storage puts its files where this one does: it is this one, or is of the same folder."""
    while isinstance(one, LazyObject):
        if one._wrapped is empty:
            one._setup()
        one = one._wrapped
    return one is storage or (
        isinstance(one, FileSystemStorage) and os.path.abspath(one.location) == os.path.abspath(storage.root)
    )


def _rows(model: type[models.Model]) -> models.QuerySet[models.Model]:
    # Not a manager of the model's: its own ideas of what to leave out (deleted softly, of another tenant) do not count.
    return models.QuerySet(model, using=router.db_for_read(model))


def _lacks_table(model: type[models.Model]) -> bool:
    connection = connections[router.db_for_read(model)]
    name = connection.introspection.identifier_converter(model._meta.db_table)
    try:
        with connection.cursor() as cursor:
            return name not in connection.introspection.table_names(cursor, include_views=True)
    except DatabaseError:
        return False


def _of_field(storage: DualWriteStorage, model: type[models.Model], field: models.FileField) -> Iterator[Reference]:
    label, column = model._meta.label, field.name
    rows = _rows(model).exclude(**{column: ""}).exclude(**{column: None}).order_by("pk")
    last: Any = None
    while True:
        page = rows if last is None else rows.filter(pk__gt=last)
        found = list(page.values_list("pk", column)[:_PAGE])
        for pk, name in found:
            yield Reference(label, pk, column, _relative(storage, str(name)))
        if len(found) < _PAGE:
            return
        last = found[-1][0]


def _relative(storage: DualWriteStorage, name: str) -> str:
    if name[0] not in "/." and posixpath.normpath(name) == name:
        return name
    try:
        return storage.relative_name(name) or name
    except SuspiciousFileOperation:
        return name  # of no file below MEDIA_ROOT, so none will be found
