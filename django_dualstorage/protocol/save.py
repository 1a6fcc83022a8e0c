"""Save: S3 first, then the local commit. A reader sees the old version until the commit and the new one after it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from django_dualstorage.core.objects import Written
from django_dualstorage.core.phases import Policy
from django_dualstorage.core.stamp import Stamp, next_mtime_ns
from django_dualstorage.core.steps import Step
from django_dualstorage.engine.objectstore import ALWAYS, Condition, Source, unnoted
from django_dualstorage.exceptions import NameTakenError, S3Error, S3PreconditionError, UnmovableError
from django_dualstorage.hints import Kind, is_remnant_by
from django_dualstorage.protocol.home import bring_home_if_only_on_s3
from django_dualstorage.protocol.operation import Operation
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.sides.filesystem import Content, StagedFile

logger = logging.getLogger("django_dualstorage.save")


NextName = Callable[[str], str]
"""Another name for a file whose name turned out to be taken."""

#: Far more than chance explains: a storage that gives out taken names again and again is broken.
_MAX_NAMES = 100


def save(
    pair: Pair,
    policy: Policy,
    name: str,
    content: Content,
    *,
    overwrite: bool,
    next_name: NextName,
    deferred: bool = False,
) -> str:
    """Save ``content`` on the disk and, where the phase says so, on S3 first. Returns the name it got.

    Without ``overwrite``, a name that is in use on either side that the phase reads is passed over for
    ``next_name(name)``. In the phases that raise S3 errors, raises S3Error, and the old version stands. Raises
    NameTakenError if no name could be found, OSError as the disk gives it.
    """
    deferred = deferred and policy.queues_s3_errors
    staged: StagedFile | None = None
    try:
        for _ in range(_MAX_NAMES):
            with _announced(pair, policy, name, content.content_type) as operation:
                op_id = operation.id if operation else secrets.token_hex(16)
                if staged is None:
                    # The bytes come in before the lock is taken: a slow client must not hold it, and content that is
                    # itself read or saved through this storage could wait for a lock that we hold.
                    pair.observe(Step.STAGE)
                    staged = pair.local.stage(name, op_id, content)
                else:
                    staged.move_to(name, op_id)
                try:
                    if operation is None:
                        _commit_locally(pair, name, staged, overwrite=overwrite)
                    else:
                        with operation.lock():
                            _save_under_lock(
                                pair, policy, operation, name, staged, content, overwrite=overwrite, deferred=deferred
                            )
                except NameTakenError:
                    pass  # the next name is found without hint or lock of this one
                else:
                    return name
            name = next_name(name)
    finally:
        if staged is not None:
            staged.discard()
    raise NameTakenError(f"No free name was found for {name!r} in {_MAX_NAMES} attempts; look at get_available_name().")


def _announced(pair: Pair, policy: Policy, name: str, content_type: str) -> AbstractContextManager[Operation | None]:
    """The operation, where there are two sides to keep equal."""
    if not policy.writes_both:
        return nullcontext()
    return Operation(pair, Kind.SAVE, name, phase=policy.phase.value, content_type=content_type)


def _save_under_lock(
    pair: Pair,
    policy: Policy,
    operation: Operation,
    name: str,
    staged: StagedFile,
    content: Content,
    *,
    overwrite: bool,
    deferred: bool,
) -> None:
    # S3 must not get the bytes of a file whose name is taken; where it gets none, the commit itself finds out.
    on_disk = (overwrite or not deferred) and pair.local.exists(name)
    if on_disk and policy.local_truth and not overwrite:
        raise NameTakenError(f"{name!r} exists already")
    pair.observe(Step.STAMP)
    stamp = staged.stamp(pair.local.version(name) if on_disk else None)
    put = _Put(pair, policy, operation, name, staged, stamp, content.content_type)
    clean = not deferred and _put(put, overwrite=overwrite, on_disk=on_disk)
    pair.observe(Step.COMMIT)
    operation.settled = False
    # Where S3 is the truth it has said already that the name is free; a local remainder does not count.
    if overwrite or not policy.local_truth:
        staged.replace()
    else:
        try:
            staged.create()
        except NameTakenError:
            operation.settled = not operation.sent
            raise
    operation.settled = clean


def _commit_locally(pair: Pair, name: str, staged: StagedFile, *, overwrite: bool) -> None:
    pair.observe(Step.STAMP)
    staged.stamp(pair.local.version(name) if overwrite else None)
    pair.observe(Step.COMMIT)
    if overwrite:
        staged.replace()
    else:
        staged.create()


@dataclass
class _Put:
    """The S3 half of a save, under the name's lock."""

    pair: Pair
    policy: Policy
    operation: Operation
    name: str
    staged: StagedFile
    stamp: Stamp
    content_type: str

    def over_anything(self) -> Written:
        """Replace whatever object there is."""
        return self._send(ALWAYS)

    def over_nothing(self) -> Written:
        """Raises S3PreconditionError if there is an object."""
        return self._send(name_must_be_free(self.pair, self.name, patient=self._patient))

    def keep_what_only_s3_has(self) -> None:
        """Bring the file home that is about to be overwritten: if this save dies, it must not be gone."""
        bring_home_if_only_on_s3(self.pair, self.name, self.operation.id)
        self.stamp = self.staged.stamp(self.pair.local.version(self.name))

    def over_remains(self, *, retried: bool) -> bool:
        """Whether the object is what an operation left, so that to every reader the name is absent; be it this one's
        first attempt, if the request was ``retried``.
        """
        hints = self.pair.journal.hints_of(self.name)
        if not retried and all(hint.op_id == self.operation.id for hint in hints):
            return False
        found = self.pair.s3.head(self.name, patient=self._patient)
        return found is None or is_remnant_by(hints, found)

    @property
    def _patient(self) -> bool:
        return not self.policy.queues_s3_errors

    def _send(self, condition: Condition) -> Written:
        self.pair.observe(Step.PUT)
        return self.pair.s3.put(
            self.name,
            self.staged.source,
            self.stamp,
            self.operation.id,
            content_type=self.content_type,
            condition=condition,
            patient=self._patient,
            sending=self.operation.sending,
        )


def _put(put: _Put, *, overwrite: bool, on_disk: bool) -> bool:
    """Write the object; whether S3 answered cleanly. An S3 error is raised only in the phases that raise.

    Raises NameTakenError if only S3 has a file of that name and it is not to be overwritten.
    """
    try:
        return _put_object(put, overwrite=overwrite, on_disk=on_disk)
    except (S3Error, UnmovableError) as error:
        if not put.policy.queues_s3_errors:
            raise
        put.operation.settled = False
        put.pair.counters["write.queued"] += 1
        logger.warning(
            "%s is saved on the disk; S3 has to wait for manage.py dualstorage_repair, because %s", put.name, error
        )
        return False


def _put_object(put: _Put, *, overwrite: bool, on_disk: bool) -> bool:
    """See :func:`_put`. All S3 errors are raised."""
    policy = put.policy
    if not policy.sees_s3_only_files or (overwrite and on_disk):
        return put.over_anything().clean
    try:
        return put.over_nothing().clean
    except S3PreconditionError as error:
        # After a retry it may be our own first attempt that is in the way, and another may still land.
        alone = put.operation.settled = not error.retried
        if not overwrite and not (alone and policy.local_truth and put.over_remains(retried=False)):
            raise NameTakenError(f"{put.name!r} exists already on S3") from error
        if overwrite and not put.over_remains(retried=not alone):
            put.keep_what_only_s3_has()
    return put.over_anything().clean and alone


def name_must_be_free(pair: Pair, name: str, *, patient: bool) -> Condition:
    """How a create makes sure that it does not take the name of a file that only S3 has.

    Where the server honours conditions the PUT itself asks; elsewhere a HEAD has to. Raises S3PreconditionError.
    """
    if pair.s3.honours_conditions:
        return Condition(absent=True)
    if pair.s3.head(name, patient=patient) is not None:
        raise S3PreconditionError(f"{name!r} exists already on S3", status=412)
    return ALWAYS


def save_to_s3(
    pair: Pair, name: str, source: Source, *, content_type: str, overwrite: bool, next_name: NextName
) -> str:
    """Save where S3 is alone. Returns the name it got. Raises NameTakenError as :func:`save` does, and S3Error."""
    pair.observe(Step.STAMP)
    stamp = Stamp(source.size, next_mtime_ns(None))
    for _ in range(_MAX_NAMES):
        try:
            condition = ALWAYS if overwrite else name_must_be_free(pair, name, patient=True)
            pair.observe(Step.PUT)
            pair.s3.put(
                name,
                source,
                stamp,
                secrets.token_hex(16),
                content_type=content_type,
                condition=condition,
                patient=True,
                sending=unnoted,
            )
        except S3PreconditionError:
            name = next_name(name)
        else:
            return name
    raise NameTakenError(f"No free name was found for {name!r} in {_MAX_NAMES} attempts; look at get_available_name().")
