"""Keeping credentials where they are configured: out of pickles, migrations and reprs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Options of S3Storage that are credentials or may contain some (a proxy's URL, an SSE-C key, a client
#: configuration's proxies).
_SECRET: Final = frozenset(
    {
        "access_key",
        "secret_key",
        "security_token",
        "cloudfront_key",
        "cloudfront_signer",
        "proxies",
        "object_parameters",
        "client_config",
        "transfer_config",
    }
)
_SECRET_PARTS: Final = ("secret", "token", "password", "credential", "private_key", "access_key")


def is_secret(option: str) -> bool:
    """Whether an option of that name must not leave the settings."""
    lowered = option.lower()
    return lowered in _SECRET or any(part in lowered for part in _SECRET_PARTS)


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that may be written down, at any depth."""
    return {
        name: without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if not is_secret(name)
    }
