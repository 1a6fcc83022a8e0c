"""The storage put together: its options, the two sides and what keeps them equal, its phase."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import FileSystemStorage
from django.utils._os import safe_join
from django.utils.module_loading import import_string

from django_dualstorage import conf, s3storage
from django_dualstorage.core.names import is_reserved
from django_dualstorage.core.phases import DEFAULT_PHASE, Policy, policy_of
from django_dualstorage.journal import Journal
from django_dualstorage.locks import NameLocks
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.records import Known, Records
from django_dualstorage.redaction import without_secrets
from django_dualstorage.sides.capabilities import Capabilities
from django_dualstorage.sides.filesystem import FilesystemSide
from django_dualstorage.sides.s3 import S3Side

logger = logging.getLogger("django_dualstorage.phase")

DEFAULT_ALIAS = "default"


class WiredStorage(FileSystemStorage):
    """What a dual storage is made of. Building one touches neither the disk, nor S3, nor the database.

    Takes the keywords of FileSystemStorage and the options of :data:`django_dualstorage.conf.OPTION_TYPES`.
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        base_url: str | None = None,
        file_permissions_mode: int | None = None,
        directory_permissions_mode: int | None = None,
        allow_overwrite: bool = False,
        **options: Any,
    ) -> None:
        """Raises ConfigurationError for an unknown option or an unusable value."""
        # FileSystemStorage knows allow_overwrite since Django 5.1 only.
        super().__init__(location, base_url, file_permissions_mode, directory_permissions_mode)
        # Before that, a subclass said so by the flags that files are opened with.
        flags = getattr(self, "OS_OPEN_FLAGS", os.O_EXCL)
        self._allow_overwrite = allow_overwrite or not flags & os.O_EXCL
        self._given = options
        self._options: conf.Options | None = conf.resolve(options)
        # Django has put the arguments here for deconstruct(), from where they go into migrations and pickles.
        args, kwargs = self._constructor_args
        self._constructor_args: tuple[tuple[Any, ...], dict[str, Any]] = (args, without_secrets(kwargs))
        self._pair: Pair | None = None
        self._records: Records | None = None

    # -- what Django does with storages ----------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), *self._constructor_args)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"

    def _clear_cached_properties(self, setting: Any, **kwargs: Any) -> None:
        super()._clear_cached_properties(setting, **kwargs)
        if setting in {"MEDIA_ROOT", "STORAGES", "FILE_UPLOAD_PERMISSIONS", "FILE_UPLOAD_DIRECTORY_PERMISSIONS"} or (
            setting.startswith(("AWS_", "DUALSTORAGE_"))
        ):
            self._pair = self._records = self._options = None

    # -- what the other parts of this package use ------------------------------------------------------------------

    @property
    def options(self) -> conf.Options:
        """The options in force. Raises ConfigurationError."""
        options = self._options
        if options is None:
            options = self._options = conf.resolve(self._given)
        return options

    @functools.cached_property
    def alias(self) -> str | None:
        """The key in STORAGES under which the database knows this storage; None if it has none.

        Such a storage goes by the phase of ``default``, but what backfill found out about that says nothing of it.
        """
        if self._given.get("alias"):
            return str(self._given["alias"])
        return _alias_of(type(self), self._constructor_args[1])

    @property
    def root(self) -> str:
        """MEDIA_ROOT as it is now; a test may have moved the storage by assigning its location."""
        return os.fspath(self.location)

    @property
    def pair(self) -> Pair:
        """Both sides, the journal and the locks. Raises ConfigurationError."""
        pair = self._pair
        if pair is None or pair.local.root != self.root:
            _warn_if_not_installed()
            pair = self._pair = self._new_pair()
            self._records = None
        return pair

    @property
    def records(self) -> Records:
        """This storage's phase in the database."""
        if self._records is None:
            reports = None if self.alias is None else lambda: self.volume_id
            self._records = Records(self.alias or DEFAULT_ALIAS, self.options.phase, reports, self._place_if_known)
        return self._records

    @property
    def volume_id(self) -> str:
        """The id of the volume, empty while it has none: looking and reporting must not make a folder."""
        journal = self.pair.journal
        return journal.volume_id if journal.exists else ""

    @property
    def place(self) -> str:
        """Where the S3 side is: endpoint, bucket and prefix, without credentials. Asks nobody.

        Raises ConfigurationError, and what django-storages raises for settings that it cannot use.
        """
        return s3storage.place_of(s3storage.build(self.options.s3, self.options.provider))

    def _place_if_known(self) -> str:
        try:
            return self.place
        except Exception as error:  # noqa: BLE001  a site's own S3Storage may raise anything; who needs S3 is told
            logger.debug("Where the S3 side is cannot be told: %s", type(error).__name__)
            return ""

    @property
    def known(self) -> Known:
        """The phase and what belongs to it, as this process knows it. Raises PhaseUnknownError."""
        known = self.records.known()
        return known if self.alias is not None else Known(known.phase)

    @property
    def policy(self) -> Policy:
        """What this process does now. Raises PhaseUnknownError."""
        return policy_of(self.known.phase)

    def relative_name(self, name: str) -> str:
        """``name`` relative to MEDIA_ROOT, with forward slashes; empty for MEDIA_ROOT itself.

        Raises SuspiciousFileOperation for a name outside it or one that belongs to this package.
        """
        return _relative_name(self.root, name)

    def _new_pair(self) -> Pair:
        options = self.options
        journal = Journal(self.root, fsync=options.fsync)
        return Pair(
            local=FilesystemSide(
                self.root,
                file_mode=self.file_permissions_mode,
                folder_mode=self.directory_permissions_mode,
                fsync=options.fsync,
            ),
            s3=S3Side(
                lambda: s3storage.build(options.s3, options.provider),
                options.provider,
                options.timing,
                Capabilities(journal).honours_conditions,
                makes_plain_urls=s3storage.makes_plain_urls,
            ),
            journal=journal,
            locks=NameLocks(journal, timeout=options.lock_timeout),
            read_repair=options.read_repair,
            grace=options.grace,
        )


_warned_of_app = False


def _warn_if_not_installed() -> None:
    """Say once that our app is missing; while the apps are still loading nobody can know."""
    global _warned_of_app
    if apps.ready and not _warned_of_app and not apps.is_installed("django_dualstorage"):
        _warned_of_app = True
        logger.warning(
            "django_dualstorage is not in INSTALLED_APPS, so there are neither tables for the phase nor commands nor "
            "checks, and a phase that is not pinned is %s. Add it and run manage.py migrate",
            DEFAULT_PHASE,
        )


@functools.lru_cache(maxsize=1024)
def _relative_name(root: str, name: str) -> str:
    # Nothing here asks the disk, and one save asks for the same name several times.
    relative = safe_join(root, name)[len(root) :].lstrip("/")
    if is_reserved(relative):
        raise SuspiciousFileOperation(f"{name!r} belongs to django-dualstorage's own files.")
    return relative


def _alias_of(storage: type, public_options: dict[str, Any]) -> str | None:
    for alias, entry in settings.STORAGES.items():
        backend = entry.get("BACKEND", "")
        if without_secrets(entry.get("OPTIONS", {})) == public_options and _is(backend, storage):
            return str(alias)
    return None


def _is(backend: str | type, storage: type) -> bool:
    try:
        return (import_string(backend) if isinstance(backend, str) else backend) is storage
    except ImportError:
        return False  # another entry's problem, which Django reports when that storage is used


def _rebuilt(storage: type[WiredStorage], args: tuple[Any, ...], kwargs: dict[str, Any]) -> WiredStorage:
    """A storage from a pickle, which has no credentials: they come back from STORAGES if it is configured there."""
    alias = _alias_of(storage, kwargs) if not args else None
    return storage(*args, **(settings.STORAGES[alias].get("OPTIONS", {}) if alias else kwargs))
