"""Making a message: where it is, what to do, where to read on; and never a credential in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from django.conf import settings
from django.core.checks import ERROR, WARNING, CheckMessage

from django_dualstorage.redaction import is_secret

T = TypeVar("T")

#: Shorter texts are in every sentence; nobody's key is that short.
_SHORTEST_SECRET = 4
_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def message(check_id: str, where: str, text: str, hint: str) -> CheckMessage:
    """A message of one of this package's checks; the level is the letter in its id."""
    level = ERROR if check_id.rpartition(".")[2].startswith("E") else WARNING
    return CheckMessage(level, text, hint=f"{hint} See docs/checks.rst, {check_id}", obj=where, id=check_id)


def attempted(call: Callable[..., T], *arguments: Any) -> T | Exception:
    """What ``call`` returns or raises: a site's own storages may raise anything, and a check must say so instead."""
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001  see above
        return error


def told(error: Exception, options: Mapping[str, Any]) -> str:
    """What an exception says, without the credentials in ``options``, the settings and the environment."""
    text = f"{type(error).__name__}: {error}"
    for secret in sorted(_secrets(options), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _IN_URL.sub("***", text)


def _secrets(options: Mapping[str, Any]) -> set[str]:
    site = [{_as_option(name): getattr(settings, name)} for name in dir(settings) if name.startswith("AWS_")]
    environment = [{_as_option(name): value} for name, value in os.environ.items() if name.startswith("AWS_")]
    found = {text for text in _texts([options, site, environment, settings.DATABASES]) if len(text) >= _SHORTEST_SECRET}
    # An error may show a value as Python does, where a key with line breaks looks different.
    return found | {repr(text)[1:-1] for text in found}


def _as_option(name: str) -> str:
    return name.removeprefix("AWS_").removeprefix("S3_").lower()


def _texts(value: Any, *, secret: bool = False) -> Iterator[str]:
    """The texts below a name that is a secret's."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _texts(below, secret=secret or is_secret(str(name)))
    elif isinstance(value, (list, tuple)):
        for below in value:
            yield from _texts(below, secret=secret)
    elif secret and isinstance(value, (str, bytes)):
        yield value if isinstance(value, str) else value.decode(errors="replace")
