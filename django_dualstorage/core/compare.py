"""The rule by which an object is brought to what the disk says."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.stamp import Stamp


class Action(str, Enum):
    """What has to be done so that S3 is equal to the disk."""

    NOTHING = "nothing"
    #: S3 lacks the file.
    UPLOAD = "upload"
    #: S3 holds another version of it.
    REPLACE = "replace"
    #: S3 holds an object of the same size that nobody stamped: compare the bytes, then stamp or replace it.
    ADOPT = "adopt"
    #: The file is gone and the object is a remainder of its operations.
    DELETE = "delete"


def is_remnant(remote: ObjectInfo, *, deleted: bool, own_ops: Collection[str]) -> bool:
    """Whether an object without a local file is what operations on a file that is gone have left, so that the name
    counts as absent; otherwise it is a file that only S3 has.

    ``deleted``: one of the name's hints is that of a delete. ``own_ops``: the operations that have a hint.
    """
    return deleted or remote.op_id in own_ops


def reconcile_action(local: Stamp | None, remote: ObjectInfo | None, *, remnant: bool = False) -> Action:
    """What makes S3 equal to the disk, which is the truth.

    ======================  ================  ==============================================  =========
    disk                    S3                                                                action
    ======================  ================  ==============================================  =========
    a file                  nothing                                                           upload
    a file                  an object         its stamp equals the file's version             nothing
    a file                  an object         no stamp, same size                             adopt
    a file                  an object         another stamp, or no stamp and another size     replace
    nothing                 nothing                                                           nothing
    nothing                 an object         ``remnant`` (:func:`is_remnant`): the file    delete
                                              was deleted, or the write never committed
    nothing                 an object         anything else: a file that only S3 has          nothing
    ======================  ================  ==============================================  =========
    """
    if local is None:
        return Action.DELETE if remote is not None and remnant else Action.NOTHING
    if remote is None:
        return Action.UPLOAD
    if remote.stamp == local:
        # A size that does not fit its own stamp is a torn or tampered object, whatever the stamp says.
        return Action.NOTHING if remote.size == local.size else Action.REPLACE
    if remote.stamp is None and remote.size == local.size:
        return Action.ADOPT
    return Action.REPLACE
