"""django-storages' ``S3Storage``, or the site's own subclass, as the holder of the S3 configuration."""

from __future__ import annotations

from typing import Any

from django.utils.module_loading import import_string
from storages.backends.s3 import S3Storage

from django_dualstorage.core.providers import Provider
from django_dualstorage.exceptions import ConfigurationError


def build(options: dict[str, Any], provider: Provider) -> S3Storage:
    """The storage that ``OPTIONS["s3"]`` describes; what it leaves out comes from the ``AWS_*`` settings.

    Raises ConfigurationError for a backend that is not an ``S3Storage``, ImproperlyConfigured as django-storages does.
    """
    storage = as_configured(options)
    if storage.gzip:
        raise ConfigurationError(
            "gzip is on for the S3 side: it changes the bytes, so the two sides could never be equal. "
            "Turn AWS_IS_GZIPPED or the option gzip off and let the CDN compress."
        )
    if not storage.bucket_name:
        raise ConfigurationError(
            "No bucket is configured. Set AWS_STORAGE_BUCKET_NAME, or bucket_name in OPTIONS['s3']."
        )
    _fill_in(storage, provider)
    return storage


def as_configured(options: dict[str, Any]) -> S3Storage:
    """The same as the site has written it, usable or not; for checks, which tell apart what is wrong with it."""
    backend = S3Storage
    if "BACKEND" in options:
        if unknown := sorted(map(str, options.keys() - {"BACKEND", "OPTIONS"})):
            raise ConfigurationError(
                f"OPTIONS['s3'] names a BACKEND, so {', '.join(unknown)} must be moved into its own OPTIONS."
            )
        try:
            backend = import_string(options["BACKEND"])
        except ImportError as error:
            raise ConfigurationError(f"The BACKEND in OPTIONS['s3'] cannot be imported: {error}") from error
        if not (isinstance(backend, type) and issubclass(backend, S3Storage)):
            raise ConfigurationError(
                f"{options['BACKEND']} in OPTIONS['s3'] is not a subclass of storages.backends.s3.S3Storage."
            )
        options = options.get("OPTIONS", {})
    return backend(**options)


def _fill_in(storage: Any, provider: Provider) -> None:
    """What the provider needs and the site has not set. The client library would presign with an older signature by
    itself, which several services and all newer AWS regions refuse.
    """
    from botocore.config import Config

    if storage.endpoint_url is None and provider.endpoint is not None and storage.region_name:
        storage.endpoint_url = provider.endpoint.format(region=storage.region_name)
    changes: dict[str, Any] = {}
    if storage.client_config.signature_version is None:
        changes["signature_version"] = "s3v4"
    addressing = (storage.client_config.s3 or {}).get("addressing_style")
    if addressing is None and provider.addressing is not None:
        changes["s3"] = {**(storage.client_config.s3 or {}), "addressing_style": provider.addressing}
    if changes:
        storage.client_config = storage.client_config.merge(Config(**changes))


def endpoint_of(storage: Any) -> str | None:
    """The address that is configured, in the settings, the environment or the profile; None leaves it to Amazon.

    Raises BotoCoreError for a profile that cannot be used.
    """
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.session import Session

    if storage.endpoint_url is not None:
        return str(storage.endpoint_url)
    session = Session(profile=storage.session_profile)
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    found = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
    return None if found is None else str(found)


def place_of(storage: Any) -> str:
    """Where the objects are: endpoint, bucket and prefix as one text without credentials. Asks nobody."""
    endpoint = endpoint_of(storage) or "s3://"  # a bucket's name is unique in all of Amazon's regions
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{host.rpartition('@')[2].rstrip('/')}/{storage.bucket_name}/{storage.location.strip('/')}"


def makes_plain_urls(storage: Any) -> bool:
    """Whether ``url()`` is django-storages' own, so that a presigned URL can be built without it."""
    return type(storage).url is S3Storage.url and type(storage)._normalize_name is S3Storage._normalize_name
