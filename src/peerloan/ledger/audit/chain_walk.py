"""A chain gone through record by record, in the order of ids: which are as their writer left them.

A record's MAC speaks of the one before it, so the record after it tells an edited one (the chain
goes on from it) from an added one (the chain goes on past it). Until that comes, a record whose
MAC does not fit is in doubt; at the chain's end, the heads that were written down decide.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from peerloan import uuid7
from peerloan.ledger.audit.findings import Finding, Findings
from peerloan.ledger.seal import record_mac, record_name


class Sealed:
    """A model version as the records' MACs have it."""

    def __init__(self, number: int, name: str | None = None, digest: bytes = b"") -> None:
        """Without a name: a version that is not in the ledger."""
        self.number = number
        self.name = name
        self.digest = digest
        self.fits = False
        # Records that name it and whose MACs don't fit: if none fits, it was not they that changed.
        self.misfits = Findings()


class Step(NamedTuple):
    """A record's place in a chain, and what is wrong with its values ("": nothing)."""

    id: bytes
    time_ms: int
    seq: int
    version: Sealed
    digest: bytes
    mac: bytes
    fault: str


class NamedHead(NamedTuple):
    """A record that was written down as a chain's newest, with its MAC in hexadecimal digits."""

    seq: int
    mac: str
    source: str


class Walk:
    """How far a chain was gone through. `seq` and `mac` are the last record's that stands in it."""

    def __init__(
        self,
        chain: int,
        keyed: hmac.HMAC,
        versions: Mapping[int, Sealed],
        findings: Findings,
        heads: Sequence[NamedHead] = (),
    ) -> None:
        self.chain = chain
        self.seq = 0
        self.mac = b""
        self.last_id: bytes | None = None
        # Whether a record that fits after `mac` needs no closer look.
        self.calm = True
        self._keyed = keyed
        self._versions = versions
        self._findings = findings
        self._heads = heads
        self.heads_at = {head.seq for head in heads}
        # The last one's MAC as it follows from what it says, where another is written down: after
        # what is written of the one before it, and after what follows of that.
        self._others: tuple[bytes, ...] = ()
        self._doubt: Step | None = None

    def open(self, written: bytes, computed: bytes | None) -> None:
        """Begin after the chain's opening, given its MAC as written and as it should be."""
        self.mac = written
        self._others = () if computed in (None, written) else (computed,)
        self.calm = not self._others

    def join(self, step: Step) -> None:
        """Begin with a record, where the opening is not there."""
        self._go_to(step, ())

    def goes_on(self, step: Step) -> bool:
        """Take the next record in the order of ids, if the chain goes on with it."""
        doubt = self._doubt
        if step.seq == self.seq + 1:
            edited = self._edit(step, self.mac, *self._others)
            if edited is not None:
                self._accept(step, edited)
                return True
        if doubt is not None and step.seq == doubt.seq + 1:
            edited = self._edit(step, doubt.mac, *self._computed(doubt))
            if edited is not None:
                self._settle(doubt)
                self._accept(step, edited)
                return True
        return False

    def claims(self, step: Step) -> bool:
        """Take a record with which the chain goes on, though it says to stand elsewhere."""
        here = step._replace(seq=self.seq + 1)
        if self._mac(here, self.mac) != step.mac:
            return False
        step.version.fits = True
        self._accept(here, "it says to stand elsewhere than where it was sealed")
        return True

    def hold(self, step: Step) -> None:
        """Keep a record in mind with which the chain does not go on."""
        doubt = self._doubt
        if step.seq <= self.seq:
            self._added(step)
            return
        if doubt is not None:
            if step.seq <= doubt.seq:
                self._added(doubt)
            else:
                self._settle(doubt)
        self._doubt = step
        self.calm = False

    def end(self) -> None:
        """Say what is left to be said where there are no more records."""
        doubt = self._doubt
        if doubt is not None:
            known = max(self.heads_at, default=0)
            if doubt.seq > self.seq + 1 or known >= doubt.seq:
                self._settle(doubt)
            else:
                self._added(doubt, doubt.version.misfits)
        beyond = [head for head in self._heads if head.seq > self.seq]
        if beyond:
            last = max(beyond)[0]
            sources = ", ".join(dict.fromkeys(head.source for head in beyond))
            where = f"after {uuid7.text(self.last_id)}" if self.last_id else "all of them"
            self._find(
                "cut-off end",
                f"{_records(self.seq + 1, last)} gone, {where}; known from {sources}",
                *(self.seq + 1, last),
            )

    def _check_heads(self, seq: int, mac: bytes) -> None:
        """See whether those who wrote a record down as the newest had the same MAC."""
        for head in self._heads:
            if head.seq == seq and head.mac != mac.hex():
                what = f"{head.source} has another MAC for record {seq}"
                self._find("cut-off end", what, seq, seq)

    def _edit(self, step: Step, *before: bytes) -> str | None:
        """What was edited ("": nothing) of a record that goes on from one of these MACs; None, if
        it can't be said to.
        """
        for mac in before:
            if self._mac(step, mac) == step.mac:
                step.version.fits = True
                return ""
            told = uuid7.milliseconds(step.id)
            if self._mac(step._replace(time_ms=told), mac) == step.mac:
                step.version.fits = True
                return "its time is not the one that it was sealed with"
            for version in self._versions.values():
                if self._mac(step._replace(version=version), mac) == step.mac:
                    version.fits = True
                    return f"it was sealed with another model version: {version.name}"
        return None

    def _computed(self, step: Step) -> tuple[bytes, ...]:
        """A record's MAC as it follows from what it says, if the one before it is there."""
        if step.seq != self.seq + 1:
            return ()
        found = (self._mac(step, before) for before in (self.mac, *self._others[-1:]))
        return tuple(mac for mac in found if mac is not None)

    def _mac(self, step: Step, before: bytes) -> bytes | None:
        try:
            name = record_name(step.id, step.time_ms, self.chain, step.seq)
            return record_mac(self._keyed, before, step.version.digest, name, step.digest)
        except (AttributeError, TypeError, struct.error):  # it holds what no writer wrote
            return None

    def _accept(self, step: Step, edited: str) -> None:
        """The chain goes on with a record, and so past one that was in doubt."""
        if self._doubt is not None:
            self._added(self._doubt)
        faults = [fault for fault in (edited, step.fault) if fault]
        if faults:
            self._edited(step, ", and ".join(faults))
        if step.seq in self.heads_at:
            self._check_heads(step.seq, step.mac)
        self._go_to(step, ())

    def _settle(self, doubt: Step) -> None:
        """The chain goes through a record that was in doubt."""
        if doubt.seq == self.seq + 1:
            fault = doubt.fault and f", and {doubt.fault}"
            self._edited(doubt, f"its MAC does not fit what it says{fault}", doubt.version.misfits)
        else:
            first, last = self.seq + 1, doubt.seq - 1
            before = f"after {uuid7.text(self.last_id)} and " if self.last_id else ""
            what = (
                f"{_records(first, last)} gone, {before}before {uuid7.text(doubt.id)}, "
                "whose MAC therefore can't be checked"
            )
            self._find("removed record", what, first, last)
            if doubt.fault:
                self._edited(doubt, doubt.fault)
        self._go_to(doubt, self._computed(doubt))

    def _go_to(self, step: Step, others: tuple[bytes, ...]) -> None:
        self.seq, self.mac, self.last_id, self._others = step.seq, step.mac, step.id, others
        self._doubt = None
        self.calm = not others

    def _edited(self, step: Step, what: str, to: Findings | None = None) -> None:
        self._find_at(step, "edited record", what, to or self._findings)

    def _added(self, step: Step, to: Findings | None = None) -> None:
        what = "the chain does not go through it"
        self._find_at(step, "added record", what, to or self._findings)

    def _find_at(self, step: Step, kind: str, what: str, to: Findings) -> None:
        shown = uuid7.text(step.id)
        told = f"chain {self.chain}, record {step.seq} ({shown}): {what}"
        to.add(Finding(kind, told, self.chain, step.seq, step.seq, shown))

    def _find(self, kind: str, what: str, first: int, last: int) -> None:
        told = f"chain {self.chain}, {what}"
        self._findings.add(Finding(kind, told, self.chain, first, last))


def _records(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
