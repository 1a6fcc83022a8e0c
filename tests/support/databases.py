"""Databases beside the test run's own: a file, and the servers on this machine that can be reached."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.utils import ConnectionHandler

ALIAS = "records"


@contextmanager
def connected(**configuration: Any) -> Iterator[None]:
    """A further database of the site, for as long as the block lasts."""
    filled = ConnectionHandler({"default": {}, ALIAS: configuration}).settings[ALIAS]
    connections.settings[ALIAS] = filled
    try:
        yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def postgresql(folder: Path) -> Iterator[dict[str, Any]]:
    """A new database on a server, or a skipped test."""
    psycopg = pytest.importorskip("psycopg")
    if not _listens(5432):
        pytest.skip("no PostgreSQL on the loopback")
    user = os.environ.get("DUALSTORAGE_TEST_POSTGRESQL_USER", "postgres")
    password = os.environ.get("DUALSTORAGE_TEST_POSTGRESQL_PASSWORD", "")
    name = f"dualstorage_{secrets.token_hex(6)}"
    with psycopg.connect(
        host="127.0.0.1", user=user, password=password or None, dbname="postgres", autocommit=True
    ) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": name,
                "HOST": "127.0.0.1",
                "USER": user,
                "PASSWORD": password,
            }
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def mariadb(folder: Path) -> Iterator[dict[str, Any]]:
    """A new database on a server, or a skipped test."""
    if importlib.util.find_spec("MySQLdb") is None:
        pytest.importorskip("pymysql").install_as_MySQLdb()
    driver: Any = importlib.import_module("MySQLdb")

    if not _listens(3306):
        pytest.skip("no MariaDB on the loopback")
    user = os.environ.get("DUALSTORAGE_TEST_MARIADB_USER", "root")
    password = os.environ.get("DUALSTORAGE_TEST_MARIADB_PASSWORD", "")
    name = f"dualstorage_{secrets.token_hex(6)}"
    admin = driver.connect(host="127.0.0.1", user=user, password=password)
    try:
        admin.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "HOST": "127.0.0.1",
            "USER": user,
            "PASSWORD": password,
            "OPTIONS": {"isolation_level": "repeatable read"},
        }
    finally:
        admin.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
        admin.close()


@contextmanager
def sqlite(folder: Path) -> Iterator[dict[str, Any]]:
    """A file in ``folder``."""
    yield {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}


DATABASES: dict[str, Callable[[Path], AbstractContextManager[dict[str, Any]]]] = {
    "sqlite": sqlite,
    "postgresql": postgresql,
    "mariadb": mariadb,
}


def migrate() -> None:
    """Make our tables."""
    with connections[ALIAS].cursor() as cursor:
        if connections[ALIAS].vendor == "sqlite":
            cursor.execute("PRAGMA journal_mode=WAL")  # as sites have it that write from several processes
    call_command("migrate", "dualstorage", database=ALIAS, verbosity=0)
