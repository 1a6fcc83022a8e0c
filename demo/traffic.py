"""People who use the site: they upload, replace, delete and read, over HTTP, and remember what they were told."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeAlias, final
from urllib.parse import urljoin

import urllib3

from demo.server import Site

_PAUSE = 0.03
_SAMPLES = 60
_ACTIONS = ("upload", "replace", "delete", "read", "page")
_WEIGHTS = (4, 4, 2, 6, 1)


Samples: TypeAlias = "dict[str, list[bytes]]"


class Visitor:
    """One of them. Each has documents of its own, so it knows what every one of them must contain."""

    def __init__(
        self, urls: list[str], names: dict[int, str], digests: dict[str, str], samples: Samples, seed: int
    ) -> None:
        self._urls = urls
        self._samples = samples
        self._random = random.Random(seed)
        self._seed = seed
        self._http = urllib3.PoolManager(retries=False, timeout=30)
        self.names = names
        self.digests = digests
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest = 0.0
        answer = self._http.request("GET", urls[0])
        self._token = answer.headers["Set-Cookie"].partition("csrftoken=")[2].partition(";")[0]

    def act(self) -> None:
        """Do one thing that a visitor does."""
        action = self._random.choices(_ACTIONS, _WEIGHTS)[0]
        started = time.monotonic()
        try:
            getattr(self, f"_{action}")()
        except (urllib3.exceptions.HTTPError, AssertionError, LookupError, ValueError) as error:
            self.failures.append(f"{action}: {error}")
        else:
            self.done[action] += 1
        self.slowest = max(self.slowest, time.monotonic() - started)

    def _upload(self) -> None:
        ending = self._random.choice([".svg", ".css", ".html", ".js", ".po"])
        content = self._content(ending)
        name = f"draft-{self._seed}-{self.done['upload']:03d}{ending}"
        saved = self._post("upload/", {"file": (name, content)}).json()
        self.names[saved["id"]] = saved["name"]
        self.digests[saved["name"]] = hashlib.sha256(content).hexdigest()

    def _replace(self) -> None:
        pk = self._any()
        content = self._content(os.path.splitext(self.names[pk])[1])
        self._post(f"documents/{pk}/replace/", {"file": ("new", content)})
        self.digests[self.names[pk]] = hashlib.sha256(content).hexdigest()

    def _delete(self) -> None:
        pk = self._any()
        self._post(f"documents/{pk}/delete/", {})
        del self.digests[self.names.pop(pk)]

    def _read(self) -> None:
        pk = self._any()
        answer = self._get(f"documents/{pk}/download/")
        if hashlib.sha256(answer.data).hexdigest() != self.digests[self.names[pk]]:
            raise AssertionError(f"{self.names[pk]} is not what was saved last")

    def _page(self) -> None:
        self._get(f"?page={self._random.randrange(1, 20)}")

    def _any(self) -> int:
        return self._random.choice(list(self.names))

    def _content(self, ending: str) -> bytes:
        """What another file of that kind contains, with something of its own: an old version must be found out."""
        mark = f"\n<!-- {self._seed} {self._random.getrandbits(64):x} -->\n".encode()
        return self._random.choice(self._samples[ending]) + mark

    def _get(self, path: str) -> Any:
        return self._checked(self._http.request("GET", self._url(path)))

    def _post(self, path: str, fields: dict[str, Any]) -> Any:
        headers = {
            "Accept": "application/json",
            "Cookie": f"csrftoken={self._token}",
            "X-CSRFToken": self._token,
        }
        return self._checked(
            self._http.request("POST", self._url(path), fields=fields, headers=headers, redirect=False)
        )

    def _url(self, path: str) -> str:
        return urljoin(self._random.choice(self._urls) + "/", path)

    @staticmethod
    def _checked(answer: Any) -> Any:
        if answer.status >= 400:
            raise AssertionError(f"the site answered {answer.status}")
        return answer


@final
class Traffic:
    """Visitors, busy for as long as a ``with`` block lasts."""

    def __init__(self, visitors: list[Visitor]) -> None:
        self._visitors = visitors
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self._before: Counter[str] = Counter()

    def __enter__(self) -> Traffic:
        for visitor in self._visitors:
            self._before += visitor.done
            visitor.slowest = 0.0
        self._threads = [threading.Thread(target=self._run, args=(visitor,), daemon=True) for visitor in self._visitors]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, visitor: Visitor) -> None:
        while not self._end.wait(_PAUSE):
            visitor.act()

    @property
    def done(self) -> Counter[str]:
        """What they have done in this block."""
        return sum((visitor.done for visitor in self._visitors), Counter[str]()) - self._before

    @property
    def slowest(self) -> float:
        """The longest that anybody waited, in seconds."""
        return max(visitor.slowest for visitor in self._visitors)

    def described(self) -> str:
        """In words."""
        done = self.done
        words = {
            "upload": "uploads",
            "replace": "replacements",
            "delete": "deletions",
            "read": "reads",
            "page": "pages",
        }
        return ", ".join(f"{done[action]} {word}" for action, word in words.items())


def visitors(site: Site, names: dict[int, str], digests: dict[str, str], number: int) -> list[Visitor]:
    """So many visitors, the documents dealt out among them."""
    samples = _samples(site.media_root, digests)
    made = []
    for seed in range(number):
        own = {pk: name for pk, name in names.items() if pk % number == seed}
        made.append(Visitor(site.urls, own, {name: digests[name] for name in own.values()}, samples, seed))
    return made


def _samples(media_root: str, names: Iterable[str]) -> Samples:
    """A few contents of each kind of file."""
    samples: Samples = {}
    for name in names:
        some = samples.setdefault(os.path.splitext(name)[1], [])
        if len(some) < _SAMPLES:
            with open(os.path.join(media_root, name), "rb") as file:
                some.append(file.read())
    return samples


def told(people: list[Visitor]) -> dict[str, str]:
    """What they all were told is saved: SHA-256 by name."""
    return {name: digest for visitor in people for name, digest in visitor.digests.items()}


def failures(people: list[Visitor]) -> list[str]:
    """What went wrong for anybody."""
    return [failure for visitor in people for failure in visitor.failures]
