"""System checks: what can be seen to be wrong before a file is lost over it.

Plain ``check`` reads settings, the environment and MEDIA_ROOT; it never sends a request. What asks the database runs
with ``--database``, what asks S3 with ``--deploy``. ``docs/checks.rst`` has a section for each id.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Tags, register

from django_dualstorage.checks.backends import dual_storages, misspelt, misused_backends, unusable_storages
from django_dualstorage.checks.database import missing_database, recorded_state
from django_dualstorage.checks.disk import disk_problems, shared_locations
from django_dualstorage.checks.live import live_problems
from django_dualstorage.checks.s3 import s3_problems, shared_prefixes

TAG = "dualstorage"


@register(TAG)
def check_backends(**kwargs: Any) -> list[CheckMessage]:
    """The entries of STORAGES are right and can be built."""
    return [*misspelt(), *misused_backends(), *unusable_storages(), *missing_database()]


@register(TAG)
def check_s3(**kwargs: Any) -> list[CheckMessage]:
    """The S3 side is configured, as far as can be told without a request."""
    found = list(dual_storages())
    return [message for dual in found for message in s3_problems(dual)] + shared_prefixes(found)


@register(TAG)
def check_disk(**kwargs: Any) -> list[CheckMessage]:
    """MEDIA_ROOT is a folder of its own in which the journal can be kept."""
    found = list(dual_storages())
    return [message for dual in found for message in disk_problems(dual)] + shared_locations(found)


@register(Tags.database)
def check_database(databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """The tables are there, and what they say agrees with the settings."""
    return list(recorded_state(list(dual_storages()), databases or ()))


@register(TAG, deploy=True)
def check_live(**kwargs: Any) -> list[CheckMessage]:
    """S3 takes, gives back and removes a small object."""
    return [message for dual in dual_storages() for message in live_problems(dual)]
