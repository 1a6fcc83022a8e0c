"""Save: S3 first, then the local commit. A reader sees the old version until the commit and the new one after it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from django_dualstorage.core.objects import Written
from django_dualstorage.core.phases import Policy
from django_dualstorage.core.stamp import Stamp, next_mtime_ns
from django_dualstorage.core.steps import Step
from django_dualstorage.engine.objectstore import ALWAYS, Condition, Source
from django_dualstorage.exceptions import NameTakenError, S3Error, S3PreconditionError, UnmovableError
from django_dualstorage.journal import Kind
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
    if policy.local_truth and not overwrite and not deferred and pair.local.exists(name):
        raise NameTakenError(f"{name!r} exists already")
    pair.observe(Step.STAMP)
    # What is created on the disk replaces nothing there.
    stamp = staged.stamp(pair.local.version(name) if overwrite or not policy.local_truth else None)
    clean = not deferred and _put(
        pair, policy, operation, name, staged, stamp, content.content_type, create=not overwrite
    )
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


def _put(
    pair: Pair,
    policy: Policy,
    operation: Operation,
    name: str,
    staged: StagedFile,
    stamp: Stamp,
    content_type: str,
    *,
    create: bool,
) -> bool:
    """Write the object; whether S3 answered cleanly. An error is raised only in the phases that raise."""
    try:
        return _put_object(pair, policy, operation, name, staged, stamp, content_type, create=create).clean
    except (S3Error, UnmovableError) as error:
        if not policy.queues_s3_errors:
            raise
        operation.settled = False
        pair.counters["write.queued"] += 1
        logger.warning(
            "%s is saved on the disk; S3 has to wait for manage.py dualstorage_repair, because %s", name, error
        )
        return False


def _put_object(
    pair: Pair,
    policy: Policy,
    operation: Operation,
    name: str,
    staged: StagedFile,
    stamp: Stamp,
    content_type: str,
    *,
    create: bool,
) -> Written:
    """Write the object. Raises NameTakenError if only S3 has a file of that name, S3Error, UnmovableError."""
    patient = not policy.queues_s3_errors

    def put(condition: Condition) -> Written:
        pair.observe(Step.PUT)
        return pair.s3.put(
            name,
            staged.source,
            stamp,
            operation.id,
            content_type=content_type,
            condition=condition,
            patient=patient,
            sending=operation.sending,
        )

    if not create or not policy.sees_s3_only_files:
        return put(ALWAYS)
    try:
        return put(_name_must_be_free(pair, name, patient=patient))
    except S3PreconditionError as error:
        # After a retry it may be our own first attempt that is in the way: then only repair can tell.
        operation.settled = not error.retried
        # An ended operation that left its hint left this object, too: to every reader the name is absent.
        remains = policy.local_truth and pair.journal.dead_hints_of(name)
        if error.retried or not remains:
            raise NameTakenError(f"{name!r} exists already on S3") from error
    return put(ALWAYS)


def _name_must_be_free(pair: Pair, name: str, *, patient: bool) -> Condition:
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
            condition = ALWAYS if overwrite else _name_must_be_free(pair, name, patient=True)
            pair.observe(Step.PUT)
            pair.s3.put(
                name,
                source,
                stamp,
                secrets.token_hex(16),
                content_type=content_type,
                condition=condition,
                patient=True,
                sending=nothing_to_note,
            )
        except S3PreconditionError:
            name = next_name(name)
        else:
            return name
    raise NameTakenError(f"No free name was found for {name!r} in {_MAX_NAMES} attempts; look at get_available_name().")


def nothing_to_note() -> None:
    """Where S3 is alone there is no journal: its answer is all there is."""
