"""Site-wide settings, ``DUALSTORAGE_...``; an entry of the same name in ``OPTIONS`` of a storage goes before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from appconf import AppConf
from django.conf import settings

from django_dualstorage.core.phases import Phase, parse_phase
from django_dualstorage.core.providers import Provider, provider_named
from django_dualstorage.exceptions import ConfigurationError
from django_dualstorage.sides.s3 import Timing


class DualStorageConf(AppConf):  # type: ignore[misc]  # untyped library
    """The settings and their defaults."""

    #: Pins the phase; None leaves it to the database row.
    PHASE = None
    #: Which service S3 is: aws, digitalocean, minio, r2, b2, seaweedfs, ceph, generic.
    PROVIDER = "aws"
    #: ``inline``, or ``deferred``: save returns after the local commit and repair brings S3 up to date.
    S3_WRITES = "inline"
    #: Leave a hint for repair where a read found S3 behind the disk.
    READ_REPAIR = False
    #: Flush files and folders to the disk itself before a save returns.
    FSYNC = False
    #: Seconds until a request to connect to S3 is given up.
    CONNECT_TIMEOUT = 2.0
    #: Seconds that S3 may be silent.
    READ_TIMEOUT = 10.0
    #: Failures in a row that open the circuit breaker.
    BREAKER_FAILURES = 3
    #: Seconds between two questions whether S3 is back.
    BREAKER_INTERVAL = 5.0
    #: Seconds an operation waits for a name's lock.
    LOCK_TIMEOUT = 60.0
    #: Seconds after which a signed request can no longer land.
    GRACE = 900.0
    #: Seconds for which a process may go by the phase it has read.
    PHASE_TTL = 3.0
    #: Seconds between two reports of a process to the fleet table.
    REPORT_INTERVAL = 60.0
    #: The database with the phase row.
    DATABASE = "default"

    class Meta:
        prefix = "dualstorage"


def misspelt_settings() -> Iterator[tuple[str, str]]:
    """Each ``DUALSTORAGE_`` setting that does not exist, with the one that may be meant, or nothing."""
    prefix = "DUALSTORAGE_"
    known = [name for name in vars(DualStorageConf) if name.isupper()]
    for name in dir(settings):
        if name.startswith(prefix) and name.removeprefix(prefix) not in known:
            close = get_close_matches(name.removeprefix(prefix), known, n=1)
            yield name, f"{prefix}{close[0]}" if close else ""


def setting(name: str) -> Any:
    """The setting ``DUALSTORAGE_<name>``, as it is now."""
    return getattr(settings, f"DUALSTORAGE_{name}")


Understood = TypeVar("Understood")

S3_WRITES: Final = ("inline", "deferred")


@dataclass(frozen=True)
class Options:
    """The options of one storage, checked. The S3 part may hold credentials and never shows itself."""

    #: Options of S3Storage, or ``{"BACKEND": ..., "OPTIONS": ...}``.
    s3: dict[str, Any] = field(repr=False)
    provider: Provider
    #: The phase that OPTIONS or the settings pin, None if the database decides.
    phase: Phase | None
    #: Whether saves leave S3 to repair, in the phases where they may.
    deferred: bool
    read_repair: bool
    fsync: bool
    timing: Timing
    lock_timeout: float
    grace: float


#: What DualWriteStorage takes besides the keywords of FileSystemStorage, with the type that each must have.
OPTION_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "s3": (dict,),
    "alias": (str,),
    "provider": (str,),
    "phase": (str,),
    "s3_writes": (str,),
    "read_repair": (bool,),
    "fsync": (bool,),
    "connect_timeout": (int, float),
    "read_timeout": (int, float),
    "breaker_failures": (int,),
    "breaker_interval": (int, float),
    "lock_timeout": (int, float),
    "grace": (int, float),
}


#: Settings that no storage has of its own.
_SITE_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "phase_ttl": (int, float),
    "report_interval": (int, float),
    "database": (str,),
}
#: Numbers that must be more than zero; the others may be zero, none may be less.
_POSITIVE: Final = ("connect_timeout", "read_timeout", "breaker_failures")


def resolve(given: dict[str, Any]) -> Options:
    """The options of a storage: those given, and the settings for the rest.

    Raises ConfigurationError for an unknown option or an unusable value, naming it.
    """
    for name in given:
        if name not in OPTION_TYPES:
            raise ConfigurationError(
                f"DualWriteStorage has no option {name!r}. Its options are {', '.join(sorted(OPTION_TYPES))}, and "
                "those of FileSystemStorage; options of S3Storage belong under 's3'."
            )
    _checked("s3", given.get("s3"), "The option 's3'")
    _checked("alias", given.get("alias"), "The option 'alias'")

    def what(name: str) -> str:
        return f"The setting DUALSTORAGE_{name.upper()}" if given.get(name) is None else f"The option {name!r}"

    def option(name: str) -> Any:
        found = given.get(name)
        return _checked(name, setting(name.upper()) if found is None else found, what(name))

    def understood(name: str, understand: Callable[[str], Understood]) -> Understood:
        value = option(name)
        try:
            return understand(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"{what(name)} cannot be used: {error}") from None

    for name in _SITE_TYPES:
        _checked(name, setting(name.upper()), f"The setting DUALSTORAGE_{name.upper()}")
    s3_writes = option("s3_writes")
    if s3_writes not in S3_WRITES:
        raise ConfigurationError(f"{what('s3_writes')} is {s3_writes!r}; it can be {' or '.join(S3_WRITES)}.")
    return Options(
        s3=given.get("s3") or {},
        provider=understood("provider", provider_named),
        phase=None if option("phase") is None else understood("phase", parse_phase),
        deferred=s3_writes == "deferred",
        read_repair=option("read_repair"),
        fsync=option("fsync"),
        timing=Timing(
            connect=option("connect_timeout"),
            read=option("read_timeout"),
            breaker_failures=option("breaker_failures"),
            breaker_interval=option("breaker_interval"),
        ),
        lock_timeout=option("lock_timeout"),
        grace=option("grace"),
    )


def _checked(name: str, value: Any, what: str) -> Any:
    if value is None and name in ("s3", "alias", "phase"):
        return value
    types = OPTION_TYPES.get(name) or _SITE_TYPES[name]
    # True is an int, but nobody's timeout.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise ConfigurationError(f"{what} must be {wanted}, not {type(value).__name__}.")
    if int in types:
        _check_number(name, value, what)
    return value


def _check_number(name: str, number: Any, what: str) -> None:
    if name in _POSITIVE and not number > 0:
        raise ConfigurationError(f"{what} must be more than zero, not {number}.")
    if not number >= 0:
        raise ConfigurationError(f"{what} must not be negative, and is {number}.")
