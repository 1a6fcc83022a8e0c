"""The frame around every operation that touches both sides: its hint and its lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_dualstorage.core.steps import Step
from django_dualstorage.hints import Kind
from django_dualstorage.locks import release
from django_dualstorage.protocol.pair import Pair

if TYPE_CHECKING:
    from typing_extensions import Self


class Operation:
    """One operation on one name; its hint is on disk before this exists.

    ``settled`` says whether both sides are known to be as they should be. It is true at the beginning, when nothing
    has been touched. Whoever is about to touch a side sets it to false, and back to true once both have answered
    cleanly; whatever happens in between, an error or a kill, the hint stays behind for repair.
    """

    def __init__(self, pair: Pair, kind: Kind, name: str, *, phase: str, content_type: str = "") -> None:
        pair.observe(Step.HINT)
        self._hint = pair.journal.announce(kind, name, phase=phase, content_type=content_type)
        self._pair = pair
        self._name = name
        self._ended = False
        self.id = self._hint.record.op_id
        self.settled = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def lock(self) -> _Lock:
        """Hold the name's lock; the operation ends with it."""
        return _Lock(self)

    @property
    def sent(self) -> bool:
        """Whether an S3 mutation may have been carried out."""
        return self._hint.sent

    def sending(self) -> None:
        """An S3 mutation is about to leave: from now on it may have been carried out, or land late."""
        self.settled = False
        self._hint.sending()

    def acquire(self) -> int:
        """Take the name's lock."""
        self._pair.observe(Step.LOCK)
        return self._pair.locks.acquire(self._name)

    def end(self) -> None:
        """Clear the hint if all is settled, else leave it for repair."""
        if self._ended:
            return
        self._ended = True
        if self.settled:
            self._pair.observe(Step.CLEAR)
            self._hint.clear()
        else:
            self._hint.leave()


class _Lock:
    """The lock of an operation's name. A class: a generator would cost more than the lock."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        self._fd = self._operation.acquire()

    def __exit__(self, *error: object) -> None:
        try:
            self._operation.end()
        finally:
            release(self._fd)


def nothing_to_note() -> None:
    """Where S3 is alone there is no journal: its answer is all there is."""
