"""Delete: S3 first, then the local unlink. A reader sees the file until the unlink and nothing after it."""

from __future__ import annotations

import logging
from contextlib import suppress

from django_dualstorage.core.phases import Policy
from django_dualstorage.core.steps import Step
from django_dualstorage.engine.objectstore import unnoted
from django_dualstorage.exceptions import S3Error, UnmovableError
from django_dualstorage.hints import Kind
from django_dualstorage.protocol.home import bring_home_if_only_on_s3
from django_dualstorage.protocol.operation import Locked, Operation
from django_dualstorage.protocol.pair import Pair

logger = logging.getLogger("django_dualstorage.delete")


def delete(pair: Pair, policy: Policy, name: str, *, deferred: bool = False) -> None:
    """Remove ``name`` from every side that the phase writes; a name that does not exist is fine.

    Raises S3Error in the phases that raise them, and then the file still stands; OSError as the disk gives it.
    """
    if not policy.writes_local:
        pair.observe(Step.DELETE)
        with suppress(UnmovableError):  # S3 cannot have such a name
            pair.s3.delete(name, patient=True, sending=unnoted)
        return
    if not policy.writes_s3:
        pair.observe(Step.UNLINK)
        pair.local.unlink(name)
        return
    with Locked(pair, name):
        if policy.local_truth and not policy.queues_s3_errors and not pair.local.exists(name):
            bring_home_if_only_on_s3(pair, name)
        with Operation(pair, Kind.DELETE, name, phase=policy.phase.value) as operation:
            clean = False
            if not (deferred and policy.queues_s3_errors):
                pair.observe(Step.DELETE)
                clean = _delete_object(pair, policy, operation, name)
            pair.observe(Step.UNLINK)
            operation.settled = False
            pair.local.unlink(name)
            operation.settled = clean


def _delete_object(pair: Pair, policy: Policy, operation: Operation, name: str) -> bool:
    """Remove the object; whether S3 answered cleanly. An error is raised only in the phases that raise."""
    try:
        return pair.s3.delete(name, patient=not policy.queues_s3_errors, sending=operation.sending).clean
    except UnmovableError:
        return True  # S3 cannot have such a name
    except S3Error as error:
        if not policy.queues_s3_errors:
            raise
        pair.counters["write.queued"] += 1
        logger.warning(
            "%s is deleted on the disk; S3 has to wait for manage.py dualstorage_repair, because %s", name, error
        )
        return False
