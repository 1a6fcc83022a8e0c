"""A project of its own, whose commands run as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_dualstorage.storage import DualWriteStorage

ROOT = Path(__file__).parents[2]
#: Seconds after which a command hangs, on any machine.
DEADLINE = 120.0

_SETTINGS = """
from tests.settings import *

DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}}
STORAGES = {{"default": {{"BACKEND": "django_dualstorage.storage.DualWriteStorage", "OPTIONS": {options!r}}}}}
"""


@dataclass
class Site:
    """The project, its tables made, and a storage of this process on the same two sides."""

    environment: dict[str, str]
    storage: DualWriteStorage

    def start(self, *args: str, **how: Any) -> subprocess.Popen[str]:
        """``manage.py`` with these words."""
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
        return subprocess.Popen([sys.executable, "-m", "django", *args], env=self.environment, cwd=ROOT, **how)

    def run(self, *args: str) -> tuple[int, str, str]:
        """The same, to its end: exit code, stdout and stderr."""
        process = self.start(*args)
        out, err = process.communicate(timeout=DEADLINE)
        return process.returncode, out, err


def make_site(folder: Path, storage: DualWriteStorage, options: dict[str, Any]) -> Site:
    """A project in ``folder`` whose default storage has ``options``."""
    (folder / "site_settings.py").write_text(_SETTINGS.format(database=str(folder / "db.sqlite3"), options=options))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "DJANGO_SETTINGS_MODULE": "site_settings",
    }
    site = Site(environment, storage)
    code, _, err = site.run("migrate", "dualstorage", "-v0")
    assert code == 0, err
    return site
