"""The frame around every operation that touches both sides: its hint and its lock."""

from __future__ import annotations

from collections.abc import Callable
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

    def lock(self) -> Locked:
        """Hold the name's lock; the operation ends with it."""
        return Locked(self._pair, self._name, self.end)

    @property
    def sent(self) -> bool:
        """Whether an S3 mutation may have been carried out."""
        return self._hint.sent

    def sending(self) -> None:
        """An S3 mutation is about to leave: from now on it may have been carried out, or land late."""
        self.settled = False
        self._hint.sending()

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


class Locked:
    """The lock of a name. A class: a generator would cost more than the lock."""

    def __init__(self, pair: Pair, name: str, at_last: Callable[[], None] | None = None) -> None:
        """``at_last`` is done just before the lock is released."""
        self._pair = pair
        self._name = name
        self._at_last = at_last

    def __enter__(self) -> None:
        self._pair.observe(Step.LOCK)
        self._fd = self._pair.locks.acquire(self._name)

    def __exit__(self, *error: object) -> None:
        try:
            if self._at_last is not None:
                self._at_last()
        finally:
            release(self._fd)
