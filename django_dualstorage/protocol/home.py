"""Bringing a file home: from S3 to the disk, in its very version."""

from __future__ import annotations

from django_dualstorage.core.compare import is_remnant
from django_dualstorage.core.steps import Step
from django_dualstorage.engine.boto import MIB
from django_dualstorage.engine.objectstore import Body
from django_dualstorage.exceptions import S3NotFoundError, S3TransientError, UnmovableError
from django_dualstorage.hints import Kind
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.sides.filesystem import Content


def bring_home(pair: Pair, name: str, op_id: str, body: Body, *, replace: bool) -> None:
    """Commit the object under its name on the disk, with the time that its stamp has, so that it stays certified.

    The caller holds the name's lock. Without ``replace``, raises NameTakenError if the disk has the name. Raises
    S3TransientError if the answer was cut short; the disk is as before then.
    """
    info = body.info
    with pair.local.stage(name, op_id, Content(iter(lambda: body.read(MIB), b"")), purpose="home") as staged:
        if staged.source.size != info.size:
            raise S3TransientError(f"S3's answer for {name} was cut short at {staged.source.size} of {info.size} bytes")
        if info.stamp is not None and info.stamp.size == info.size:
            staged.keep_mtime(info.stamp.mtime_ns)
        else:
            staged.stamp(pair.local.version(name))
        pair.observe(Step.COMMIT)
        if replace:
            staged.replace()
        else:
            staged.create()


def bring_home_if_only_on_s3(pair: Pair, name: str, op_id: str) -> None:
    """Before an operation that might fail half-way touches a file that only S3 has: give the disk, the truth, a copy,
    so that there is an old version to go back to. Raises S3Error.
    """
    try:
        body = pair.s3.get(name, patient=True)
    except (S3NotFoundError, UnmovableError):
        return
    try:
        hints = pair.journal.dead_hints_of(name)
        if not is_remnant(
            body.info,
            deleted=any(hint.record.kind is Kind.DELETE for hint in hints),
            own_ops={hint.record.op_id for hint in hints},
        ):
            bring_home(pair, name, op_id, body, replace=False)
    finally:
        body.close()
