"""Bringing a file home: from S3 to the disk, in its very version."""

from __future__ import annotations

import secrets

from django_dualstorage.core.stamp import Stamp
from django_dualstorage.core.steps import Step
from django_dualstorage.engine.boto import MIB
from django_dualstorage.engine.objectstore import Body
from django_dualstorage.exceptions import NameTakenError, S3NotFoundError, S3TransientError, UnmovableError
from django_dualstorage.hints import is_remnant_by
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.sides.filesystem import Content


def bring_home(pair: Pair, name: str, op_id: str, body: Body, *, over: Stamp | None) -> None:
    """Commit the object under its name on the disk, with the time that its stamp has, so that it stays certified.

    The caller holds the name's lock, and has decided that it may go ``over`` that local version, or that the disk has
    none. Raises NameTakenError if the disk has something else by now, S3TransientError if the answer was cut short;
    the disk is as before then.
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
        if over is None:
            staged.create()
        elif pair.local.version(name) == over:
            staged.replace()
        else:
            raise NameTakenError(f"{name!r} was written to while S3's copy was on its way")


def bring_home_if_only_on_s3(pair: Pair, name: str, own: str = "") -> None:
    """Before an operation that might fail half-way touches a file that only S3 has: give the disk, the truth, a copy,
    so that there is an old version to go back to.

    The caller holds the name's lock. ``own``: its operation, which may have written the object. Raises S3Error.
    """
    try:
        body = pair.s3.get(name, patient=True)
    except (S3NotFoundError, UnmovableError):
        return
    try:
        # All hints, not only those of the dead: who else lives waits for the lock and has written nothing, but of a
        # process that was killed the kernel may have released the lock before the hint's own. One's own counts too:
        # what it hides is one's own attempt.
        if not is_remnant_by(pair.journal.hints_of(name), body.info):
            bring_home(pair, name, own or secrets.token_hex(16), body, over=None)
    finally:
        body.close()
