"""Which names a run is about: globs, age, and lists of names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Rule(NamedTuple):
    """One ``--include`` or ``--exclude``."""

    include: bool
    #: See :func:`translate`.
    glob: str


@dataclass(frozen=True)
class Selection:
    """What a run takes. The first rule whose glob fits decides; a name that none fits is taken unless there is a rule
    that includes.
    """

    rules: Sequence[Rule] = ()
    #: Only versions whose modification time is this or later. Nanoseconds since the epoch.
    since_ns: int | None = None
    #: Only these names, relative to MEDIA_ROOT; read once. None for all.
    names: Iterable[str] | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out, so that a run says something about the whole."""
        return not self.rules and self.since_ns is None and self.names is None

    @cached_property
    def _compiled(self) -> list[tuple[bool, re.Pattern[str]]]:
        return [(rule.include, re.compile(translate(rule.glob))) for rule in self.rules]

    @cached_property
    def _otherwise(self) -> bool:
        return not any(rule.include for rule in self.rules)

    def takes_odd(self, name: str) -> bool:
        """Whether the rules take what is no file but may stand for a folder: a link, or a folder that cannot be read.
        A rule for the folder fits it, too.
        """
        for include, pattern in self._compiled:
            if pattern.fullmatch(name) or pattern.fullmatch(f"{name}/"):
                return include
        return self._otherwise

    def takes_name(self, name: str) -> bool:
        """Whether the rules take the name."""
        for include, pattern in self._compiled:
            if pattern.fullmatch(name):
                return include
        return self._otherwise


EVERYTHING = Selection()


def translate(glob: str) -> str:
    """The regular expression, for a full match of a name relative to MEDIA_ROOT, of a glob.

    ``*`` and ``?`` stand for anything but a slash, ``**`` for anything, ``[abc]``, ``[a-z]`` and ``[!abc]`` for one
    character. A glob without a slash fits the last part of a name, in any folder; one with a slash the whole name,
    and may begin with a slash to say so; one that ends with a slash everything below that folder. Raises ValueError
    for an empty glob.
    """
    if not glob.strip("/"):
        raise ValueError("an empty glob fits nothing")
    anywhere = "/" not in glob
    if glob.endswith("/"):
        glob += "**"
    glob = glob.removeprefix("/")
    parts = ["(?:.*/)?"] if anywhere else []
    at = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if glob.startswith("**/", at - 1) and (at == 1 or glob[at - 2] == "/"):
            parts.append("(?:.*/)?")  # also no folder at all
            at += 2
        elif char == "*" and glob[at : at + 1] == "*":
            parts.append(".*")
            at += 1
        elif char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[" and (end := glob.find("]", at + 2 if glob[at : at + 1] == "!" else at + 1)) > 0:
            inside = glob[at:end]
            negated, inside = inside.startswith("!"), inside.removeprefix("!")
            escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside)
            parts.append(f"[{'^/' if negated else ''}{escaped}]")
            at = end + 1
        else:
            parts.append(re.escape(char))
    return f"(?s:{''.join(parts)})"
