"""Every file below MEDIA_ROOT, and everything else that lies there, by name and reason."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from django_dualstorage.core.names import is_reserved, is_staged
from django_dualstorage.core.report import FileResult, Outcome

#: A staged file that nobody has open any more and that is this old is a killed process's.
_FORGOTTEN_AFTER = 3600.0


class Version(NamedTuple):
    """A file as the walk saw it."""

    name: str
    #: Bytes.
    size: int
    #: Nanoseconds since the epoch.
    mtime_ns: int


def walk(root: str, prefix: str = "") -> Iterator[str | FileResult]:
    """The names whose beginning is ``prefix``; see :func:`walk_versions`."""
    for found in walk_versions(root, prefix):
        yield found.name if isinstance(found, Version) else found


def walk_versions(root: str, prefix: str = "") -> Iterator[Version | FileResult]:
    """The files whose names begin with ``prefix``, in no particular order, and a problem for each thing that is none.

    Memory is bounded by the number of folders that lie beside each other. Raises FileNotFoundError if ``root`` is not
    there.
    """
    start = os.path.dirname(prefix)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"MEDIA_ROOT {root} is not a folder. Is its volume mounted?")
    stack = [] if is_reserved(start) else [start]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                yield from _folder(folder, entries, prefix, stack)
        except FileNotFoundError:
            continue  # removed meanwhile, or no such prefix: there is nothing to copy
        except NotADirectoryError:
            continue
        except OSError as error:
            detail = f"the folder cannot be read ({error.strerror}); give this user read and search permission"
            yield FileResult(_shown(folder), Outcome.UNREADABLE, detail=detail)


def _folder(
    folder: str, entries: Iterable[os.DirEntry[str]], prefix: str, stack: list[str]
) -> Iterator[Version | FileResult]:
    """What lies in one folder; the folders in it go on the stack."""
    above = f"{folder}/" if folder else ""
    whole = above.startswith(prefix)
    for entry in entries:
        basename = entry.name
        name = above + basename
        if basename[0] == "." and is_reserved(name):
            if is_staged(basename):
                _sweep(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                stack.append(name)
        elif whole or name.startswith(prefix):
            found = _file_or_problem(name, entry)
            if found is not None:
                yield found


def _file_or_problem(name: str, entry: os.DirEntry[str]) -> Version | FileResult | None:
    """None for a file that was deleted since the folder was read."""
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            detail = "is not valid UTF-8, as S3 keys must be; rename the file"
            return FileResult(_shown(name), Outcome.BAD_NAME, detail=detail)
    link = entry.is_symlink()
    if link and os.path.isdir(entry.path):  # a loop of links is no folder, where is_dir() raises
        detail = (
            "is a link to a folder, which is not followed; put the folder in its place (a bind mount will do), or "
            "leave it out with --exclude"
        )
        return FileResult(name, Outcome.SYMLINK, detail=detail)
    if not link and not entry.is_file(follow_symlinks=False):
        return FileResult(name, Outcome.SPECIAL, detail="is a socket, pipe or device, not a file; remove it")
    try:
        status = entry.stat()
    except OSError as error:
        if link and error.errno in {errno.ELOOP, errno.ENOENT, errno.ENOTDIR}:
            what = "a loop of links" if error.errno == errno.ELOOP else "a link to nothing"
            return FileResult(name, Outcome.SYMLINK, detail=f"is {what}; remove it")
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return None
        return FileResult(
            name,
            Outcome.UNREADABLE,
            detail=f"cannot be looked at ({error.strerror}); give this user search permission on its folder",
        )
    if link and not stat.S_ISREG(status.st_mode):
        return FileResult(name, Outcome.SPECIAL, detail="is a socket, pipe or device, not a file; remove it")
    return Version(name, status.st_size, status.st_mtime_ns)


def _shown(name: str) -> str:
    """The name as it can be printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _sweep(path: str) -> None:
    """Remove a staged file that a killed process left. A live one is young, or locked by the writer who has it open."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # committed or removed meanwhile
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or time.time() - status.st_ctime < _FORGOTTEN_AFTER:
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return  # in use, removed meanwhile, or not ours to remove
    finally:
        os.close(fd)
