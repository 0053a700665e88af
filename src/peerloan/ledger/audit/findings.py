"""Findings of a verification of the ledger: the first of each kind, and the totals."""

from __future__ import annotations

from collections import Counter

import msgspec

# In the order in which they are shown.
KINDS = (
    "foreign seal",
    "edited record",
    "removed record",
    "added record",
    "cut-off end",
    "missing chain",
    "missing head",
    "edited head",
    "edited chain",
    "edited version",
    "erased values",
    "edited purge",
    "removed purge",
)
# At most this many of a kind are shown; the others are counted.
SHOWN = 20


class AuditFinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is not as its writer stored it: its kind (of KINDS), a sentence, its place."""

    kind: str
    what: str
    chain: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    id: str | None = None


class Findings:
    """Collects findings by kind, in bounded memory."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._shown: dict[str, list[AuditFinding]] = {kind: [] for kind in KINDS}

    def add(self, finding: AuditFinding) -> None:
        """Count a finding, and store it if it is one of the first of its kind."""
        self.totals[finding.kind] += 1
        shown = self._shown[finding.kind]
        if len(shown) < SHOWN:
            shown.append(finding)

    def absorb(self, other: Findings) -> None:
        """Add the findings of another collection."""
        self.totals += other.totals
        for kind, shown in self._shown.items():
            shown += other._shown[kind][: SHOWN - len(shown)]

    def shown(self) -> list[AuditFinding]:
        """Return the first findings of each kind, sorted by place."""
        return [finding for shown in self._shown.values() for finding in sorted(shown, key=_place)]


def _place(finding: AuditFinding) -> tuple[int, int]:
    return finding.chain or 0, finding.first_seq or 0
