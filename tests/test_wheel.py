"""Under tox the tests are about the wheel that users install, not about the checkout that lies beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import django_dualstorage

pytestmark = pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="only tox builds a wheel and installs it")

INSTALLED = Path(sysconfig.get_path("purelib"), "django_dualstorage")


def test_what_is_tested_is_what_was_installed() -> None:
    assert Path(django_dualstorage.__file__).parent == INSTALLED


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH came with Python 3.11")
def test_the_processes_that_tests_start_use_it_too() -> None:
    script = "import django_dualstorage; print(django_dualstorage.__file__)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).parent == INSTALLED


def test_the_wheel_has_the_types_and_the_migrations_and_no_tests() -> None:
    assert (INSTALLED / "py.typed").is_file()
    assert (INSTALLED / "migrations" / "0001_initial.py").is_file()
    assert not (INSTALLED.parent / "tests").exists()
