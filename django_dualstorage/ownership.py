"""Who owns what is made in the journal's folder: whoever owns the folder around it, though root has made it.

One command that root runs would otherwise lock the site's own user out, and every upload would fail. What is given
away was made by this very call: a user who plants links in the folder gets no file of somebody else's.
"""

from __future__ import annotations

import os


def make_file(path: str, flags: int, mode: int) -> int:
    """A new file, opened with ``flags``. Raises FileExistsError; FileNotFoundError if there is no folder for it."""
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        _give(fd, path)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def make_folder(path: str, mode: int) -> None:
    """A folder, unless it is there. Raises FileNotFoundError if there is none around it."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    if os.geteuid() == 0:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _give(fd, path)
        finally:
            os.close(fd)


def _give(fd: int, path: str) -> None:
    if os.geteuid() == 0:
        around = os.stat(os.path.dirname(path))
        if around.st_uid != 0:
            os.fchown(fd, around.st_uid, around.st_gid)


def chown_command(folder: str) -> str:
    """What root types to give ``folder`` to the user whose files are around it."""
    try:
        around = os.stat(os.path.dirname(folder))
        user, group = around.st_uid, around.st_gid
    except OSError:
        user = group = 0
    if user == 0:  # the files are root's, but it is this process that was refused
        user, group = os.geteuid(), os.getegid()
    return f"chown -R {user}:{group} {folder}"
