"""What a live probe has seen a server do. Some answer 200 to a condition that they ignore, so nothing is assumed."""

from __future__ import annotations

from django_dualstorage.journal import Journal


class Capabilities:
    """What probes have left in the journal. Read until a probe has looked; its finding then holds for the process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[str, bool] = {}

    def honours_conditions(self, identity: str) -> bool:
        """Whether the server at ``identity`` was seen to honour conditional requests. False if nobody has looked."""
        known = self._known.get(identity)
        if known is None:
            entry = self._journal.read_capabilities().get(identity)
            if not isinstance(entry, dict):
                return False
            known = self._known[identity] = entry.get("conditions") is True
        return known
