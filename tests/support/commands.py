"""Running a command in this process, as call_command does, and seeing what a shell would see."""

from __future__ import annotations

import io
from dataclasses import dataclass

from django.core.management import CommandError, call_command


@dataclass
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def dualstorage(name: str, *args: str) -> Ran:
    """Run ``dualstorage_<name>``."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command(f"dualstorage_{name}", *args, stdout=out, stderr=err, no_color=True)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())
