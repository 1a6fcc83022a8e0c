"""Every file below MEDIA_ROOT, and everything else that lies there, by name and reason."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator

from django_dualstorage.core.names import is_reserved, is_staged
from django_dualstorage.core.report import FileResult, Outcome

#: A staged file that nobody has open any more and that is this old is a killed process's.
_FORGOTTEN_AFTER = 3600.0


def walk(root: str, prefix: str = "") -> Iterator[str | FileResult]:
    """The names whose beginning is ``prefix``, in no particular order, and a problem for each thing that is no file.

    Memory is bounded by the depth and the largest folder. Raises FileNotFoundError if ``root`` is not there.
    """
    start = os.path.dirname(prefix)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"MEDIA_ROOT {root} is not a folder. Is its volume mounted?")
    stack = [start]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                found = list(entries)
        except FileNotFoundError:
            continue  # removed meanwhile, or no such prefix: there is nothing to copy
        except NotADirectoryError:
            continue
        except OSError as error:
            detail = f"the folder cannot be read ({error.strerror}); give this user read and search permission"
            yield FileResult(_shown(folder), Outcome.UNREADABLE, detail=detail)
            continue
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if is_reserved(name):
                if is_staged(entry.name):
                    _sweep(entry.path)
                continue
            if entry.is_dir(follow_symlinks=False):
                if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                    stack.append(name)
            elif name.startswith(prefix):
                yield _file_or_problem(name, entry)


def _file_or_problem(name: str, entry: os.DirEntry[str]) -> str | FileResult:
    try:
        name.encode()
    except UnicodeEncodeError:
        detail = "is not valid UTF-8, as S3 keys must be; rename the file"
        return FileResult(_shown(name), Outcome.BAD_NAME, detail=detail)
    if entry.is_symlink() and os.path.isdir(entry.path):  # a loop of links is no folder, where is_dir() raises
        return FileResult(
            name, Outcome.SYMLINK, detail="leads to a folder, which is not followed; move the folder here"
        )
    if not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
        return FileResult(name, Outcome.SPECIAL, detail="is a socket, pipe or device, not a file; remove it")
    return name


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
    except (BlockingIOError, FileNotFoundError):
        return
    finally:
        os.close(fd)
