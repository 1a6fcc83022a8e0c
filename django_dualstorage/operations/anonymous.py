"""Whether somebody without credentials can read what the site means to be private."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.core.names import key_of
from django_dualstorage.engine.boto import translated
from django_dualstorage.engine.pool import Stop
from django_dualstorage.protocol.pair import Pair

_REFUSALS = frozenset({401, 403})


def says_public(pair: Pair) -> str | None:
    """Why the site's settings say that anybody may read the bucket; None if they do not."""
    configuration = pair.s3.configuration
    acl = configuration.get_object_parameters("").get("ACL") or configuration.default_acl
    if acl in {"public-read", "public-read-write"}:
        return f"objects are written with the ACL {acl}"
    # With a domain of its own it is a CDN that may be read by all, and the bucket need not be.
    if not configuration.querystring_auth and not configuration.custom_domain:
        return "URLs are given out unsigned (querystring_auth is off)"
    return None


def look_in_anonymously(pair: Pair, names: Iterable[str], stop: Stop) -> Iterator[Found]:
    """Ask for the list of the bucket, then for each of ``names``, without a signature, and tell what was not refused.

    An answer that is neither yes nor no is a finding too. A bucket that may be listed is told under an empty name.
    Each is asked for once, with the storage's own time limits; after ``stop`` nothing more is.
    """
    configuration: Any = pair.s3.configuration
    client = configuration._create_session().client(
        "s3",
        region_name=configuration.region_name,
        use_ssl=configuration.use_ssl,
        endpoint_url=configuration.endpoint_url,
        verify=configuration.verify,
        config=configuration.client_config.merge(
            Config(
                signature_version=UNSIGNED,
                connect_timeout=pair.s3.timing.connect,
                read_timeout=pair.s3.timing.read,
                retries={"total_max_attempts": 1},
            )
        ),
    )
    bucket = configuration.bucket_name

    def asked(name: str, what: str, ask: Any) -> Iterator[Found]:
        try:
            answer = ask()
        except (ClientError, BotoCoreError) as error:
            # A request that was not answered has a response, too: none.
            answered = error.response if isinstance(error, ClientError) else {}
            status = answered.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status not in _REFUSALS:
                detail = f"whether anybody can read it is not known: {translated(error, 'an unsigned request', what)}"
                yield Found(Difference.FAILED, name, Side.S3, detail)
            return
        if "Body" in answer:
            answer["Body"].close()
        yield Found(Difference.PUBLIC, name, Side.S3, f"{what} can be read by anybody, without credentials")

    with closing(client):
        yield from asked("", "the list of the bucket", lambda: client.list_objects_v2(Bucket=bucket, MaxKeys=1))
        for name in names:
            if stop:
                return
            key = key_of(name, configuration.location)
            yield from asked(
                name, "the object", lambda key=key: client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
            )
