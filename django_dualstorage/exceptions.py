"""What can go wrong. Every message says what happened, to which file, and what to do next."""

from __future__ import annotations

from typing import Final

#: What to run where S3 itself seems to be the trouble.
LOOK_AT_S3: Final = "run manage.py check --deploy --database default, which tries S3 out"

_OF_ALL_FILES: Final = frozenset({"NoSuchBucket", "NoCredentialsError", "ExpiredToken", "InvalidToken"})


class DualStorageError(Exception):
    """The base of all errors of this package."""


class ConfigurationError(DualStorageError, ValueError):
    """A setting or option that cannot be used as it is."""


class PhaseUnknownError(DualStorageError):
    """The phase could not be read and was never known in this process; guessing could lose files."""


class JournalError(DualStorageError, OSError):
    """The journal folder inside MEDIA_ROOT cannot be used."""


class SpoolError(DualStorageError, OSError):
    """There is no room for the temporary files of a command."""


class LockTimeoutError(DualStorageError, OSError):
    """Another operation has held the lock of a name for longer than ``DUALSTORAGE_LOCK_TIMEOUT``."""


class S3Error(DualStorageError, OSError):
    """An S3 request failed; ``__cause__`` is the client library's own error.

    ``sent`` tells whether the request may have reached the server, and so may have been carried out; ``retried``
    whether the client library had tried before, so that an earlier attempt may have been carried out.
    """

    def __init__(
        self, message: str, *, code: str = "", status: int = 0, sent: bool = True, retried: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.sent = sent
        self.retried = retried

    @property
    def is_refusal(self) -> bool:
        """Whether it is about the keys, their permissions or the bucket rather than about one object."""
        return self.status in {401, 403} or self.code in _OF_ALL_FILES

    @property
    def advice(self) -> str:
        """What to do next."""
        if self.is_refusal:
            return f"{LOOK_AT_S3}, then run the command again"
        return "run the command again"


class S3NotFoundError(S3Error, FileNotFoundError):
    """S3 said ``NoSuchKey``: the one answer that means the object is absent."""


class S3PreconditionError(S3Error):
    """S3 refused a conditional request (412): somebody else was there first."""


class S3TransientError(S3Error):
    """No usable answer: refused, timed out, 5xx, throttled. Counts towards the circuit breaker."""


class S3UnavailableError(S3TransientError):
    """Not sent: S3 failed repeatedly a moment ago and the circuit breaker is open."""


class NotOnDiskError(S3TransientError, FileNotFoundError):
    """The file is not on the disk, and S3 could not be asked whether only it has the file."""


class NameTakenError(DualStorageError, FileExistsError):
    """The name to be created exists already, on the disk or on S3."""


class UnmovableError(DualStorageError):
    """A local file that cannot or must not be copied to S3; ``reason`` is a stable word for reports."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
