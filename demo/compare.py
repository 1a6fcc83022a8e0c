"""Both sides compared by somebody who knows nothing of django-dualstorage: a walk, a listing, and every byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3

_THREADS = 6


@dataclass
class Comparison:
    """What was found."""

    files: int = 0
    size: int = 0
    differences: list[str] = field(default_factory=list)


def compare(media_root: str, client: Any, bucket: str, expected: Mapping[str, str]) -> Comparison:
    """Compare the tree with the bucket, and the tree with what the visitors were told is saved.

    ``expected`` is the SHA-256 by name.
    """
    found = Comparison()
    local = {name: _file_digest(os.path.join(media_root, name)) for name in _tree(media_root)}
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    http = urllib3.PoolManager(maxsize=_THREADS)

    def digest(key: str) -> tuple[str, int, str]:
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        answer = http.request("GET", url, decode_content=False)
        if answer.status != 200:
            raise RuntimeError(f"S3 answered {answer.status} for {key}")
        return key, len(answer.data), hashlib.sha256(answer.data).hexdigest()

    with ThreadPoolExecutor(_THREADS) as pool:
        remote = {key: (size, sha) for key, size, sha in pool.map(digest, keys)}
    for name in sorted({*local, *remote, *expected}):
        on_disk, on_s3, said = local.get(name), remote.get(name, (0, None))[1], expected.get(name)
        if on_disk is None or not on_disk == on_s3 == said:
            what = [f"{place} {sha[:8] if sha else 'nothing'}" for place, sha in (("disk", on_disk), ("S3", on_s3))]
            found.differences.append(f"{name}: {', '.join(what)}, visitors were told {said[:8] if said else 'nothing'}")
    found.files = len(local)
    found.size = sum(size for size, _ in remote.values())
    return found


def _tree(media_root: str) -> list[str]:
    names = []
    for directory, folders, files in os.walk(media_root):
        folders[:] = [name for name in folders if name != ".dualstorage"]
        names += [os.path.relpath(os.path.join(directory, file), media_root) for file in files]
    return names


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
