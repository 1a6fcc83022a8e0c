"""What is peculiar to each S3 service: addresses, signatures, checksums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django_dualstorage.exceptions import ConfigurationError


@dataclass(frozen=True)
class Provider:
    """The habits of one service."""

    name: str
    #: What the server verifies of an upload: ``sha256``, or ``md5`` where newer checksum headers are refused.
    checksum: str = "sha256"
    #: How buckets are addressed; None leaves it to the client library.
    addressing: str | None = None
    #: The endpoint, with ``{region}`` to fill in; None where there is no general one.
    endpoint: str | None = None
    #: The client library finds it by itself.
    is_amazon: bool = False
    #: New buckets refuse ACL headers ("Controlling ownership of objects and disabling ACLs", Amazon S3 User Guide).
    refuses_acl: bool = False


PROVIDERS: Final = {
    provider.name: provider
    for provider in (
        Provider("aws", is_amazon=True, refuses_acl=True),
        Provider("digitalocean", checksum="md5", endpoint="https://{region}.digitaloceanspaces.com"),
        Provider("minio", addressing="path"),
        Provider("r2", checksum="md5", refuses_acl=True),
        Provider("b2", checksum="md5", endpoint="https://s3.{region}.backblazeb2.com"),
        Provider("seaweedfs", addressing="path"),
        Provider("ceph", checksum="md5", addressing="path"),
        Provider("generic", checksum="md5"),
    )
}


def endpoint_is_known(provider: Provider, endpoint: str | None, region: str | None) -> bool:
    """Whether requests would go to this service; otherwise the client library sends them to Amazon."""
    return provider.is_amazon or bool(endpoint) or bool(provider.endpoint and region)


def provider_named(name: str) -> Provider:
    """The provider of that name. Raises ConfigurationError, naming those there are."""
    try:
        return PROVIDERS[name]
    except KeyError:
        raise ConfigurationError(f"{name!r} is not a provider; there are {', '.join(PROVIDERS)}.") from None
