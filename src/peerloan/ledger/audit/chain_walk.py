"""Walks a chain record by record, by id, and finds edited, added and removed records.

A record's MAC covers the previous one's. So the next record shows whether a record was edited (the
chain continues from it) or added (the chain continues past it). Until then a record whose MAC does
not fit is in doubt. At the chain's end the stored heads decide.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from peerloan import uuid7
from peerloan.ledger.audit.findings import AuditFinding, Findings
from peerloan.ledger.seal import record_mac, record_name


class SealedVersion:
    """A model version and the digest that records' MACs use for it."""

    def __init__(self, number: int, name: str | None = None, digest: bytes = b"") -> None:
        """`name` is None for a version that is not in the ledger."""
        self.number = number
        self.name = name
        self.digest = digest
        self.fits = False
        # Its records whose MACs don't fit. If no MAC fits, the version's row was edited, not they.
        self.misfits = Findings()


class ChainRecord(NamedTuple):
    """A record's place in a chain, and what is wrong with its values (`fault`; "": nothing)."""

    id: bytes
    time_ms: int
    seq: int
    version: SealedVersion
    digest: bytes
    mac: bytes
    fault: str


class NamedHead(NamedTuple):
    """A stored head: the number of a chain's newest record, and its MAC in hexadecimal digits."""

    seq: int
    mac: str
    source: str


class ChainWalk:
    """The state of a walk. `seq` and `mac` are those of the last record in the chain."""

    def __init__(
        self,
        chain: int,
        keyed: hmac.HMAC,
        versions: Mapping[int, SealedVersion],
        findings: Findings,
        heads: Sequence[NamedHead] = (),
    ) -> None:
        self.chain = chain
        self.seq = 0
        self.mac = b""
        self.last_id: bytes | None = None
        # Whether a record that fits after `mac` needs no further check.
        self.calm = True
        self._keyed = keyed
        self._versions = versions
        self._findings = findings
        self._heads = heads
        self.heads_at = {head.seq for head in heads}
        # If the last record's stored MAC does not fit: its MAC as computed from its content, after
        # the stored MAC of the record before, and after that one's computed MAC.
        self._others: tuple[bytes, ...] = ()
        self._doubt: ChainRecord | None = None

    def start_after_opening(self, written: bytes, computed: bytes | None) -> None:
        """Start after the chain's opening, given its MAC as stored and as computed."""
        self.mac = written
        self._others = () if computed in (None, written) else (computed,)
        self.calm = not self._others

    def start_at(self, step: ChainRecord) -> None:
        """Start with a record, if the opening is missing."""
        self._continue_from(step, ())

    def try_continue(self, step: ChainRecord) -> bool:
        """Take the next record by id if the chain continues with it. Returns whether it does."""
        doubt = self._doubt
        if step.seq == self.seq + 1:
            edited = self._what_was_edited(step, self.mac, *self._others)
            if edited is not None:
                self._accept(step, edited)
                return True
        if doubt is not None and step.seq == doubt.seq + 1:
            edited = self._what_was_edited(step, doubt.mac, *self._computed(doubt))
            if edited is not None:
                self._accept_in_doubt(doubt)
                self._accept(step, edited)
                return True
        return False

    def try_misplaced(self, step: ChainRecord) -> bool:
        """Take a record that continues this chain although it names another place."""
        next_step = step._replace(seq=self.seq + 1)
        if self._mac(next_step, self.mac) != step.mac:
            return False
        step.version.fits = True
        self._accept(next_step, "it names another place than the one where it was sealed")
        return True

    def hold_in_doubt(self, step: ChainRecord) -> None:
        """Hold a record in doubt, since the chain does not continue with it."""
        doubt = self._doubt
        if step.seq <= self.seq:
            self._report_added(step)
            return
        if doubt is not None:
            if step.seq <= doubt.seq:
                self._report_added(doubt)
            else:
                self._accept_in_doubt(doubt)
        self._doubt = step
        self.calm = False

    def finish(self) -> None:
        """Finish the walk: judge the record in doubt, and find a cut-off end."""
        doubt = self._doubt
        if doubt is not None:
            known = max(self.heads_at, default=0)
            if doubt.seq > self.seq + 1 or known >= doubt.seq:
                self._accept_in_doubt(doubt)
            else:
                self._report_added(doubt, doubt.version.misfits)
        beyond = [head for head in self._heads if head.seq > self.seq]
        if beyond:
            last = max(beyond)[0]
            sources = ", ".join(dict.fromkeys(head.source for head in beyond))
            where = f"after {uuid7.text(self.last_id)}" if self.last_id else "all of them"
            self._report(
                "cut-off end",
                f"{_records(self.seq + 1, last)} gone, {where}; known from {sources}",
                *(self.seq + 1, last),
            )

    def _check_heads(self, seq: int, mac: bytes) -> None:
        """Check that the stored heads have the same MAC for a record."""
        for head in self._heads:
            if head.seq == seq and head.mac != mac.hex():
                what = f"{head.source} has another MAC for record {seq}"
                self._report("cut-off end", what, seq, seq)

    def _what_was_edited(self, step: ChainRecord, *before: bytes) -> str | None:
        """Return what was edited ("": nothing) in a record that continues from one of these MACs.

        None if it continues from none of them.
        """
        for mac in before:
            if self._mac(step, mac) == step.mac:
                step.version.fits = True
                return ""
            id_ms = uuid7.milliseconds(step.id)
            if self._mac(step._replace(time_ms=id_ms), mac) == step.mac:
                step.version.fits = True
                return "its time is not the one that it was sealed with"
            for version in self._versions.values():
                if self._mac(step._replace(version=version), mac) == step.mac:
                    version.fits = True
                    return f"it was sealed with another model version: {version.name}"
        return None

    def _computed(self, step: ChainRecord) -> tuple[bytes, ...]:
        """Compute a record's MAC from its content, if the record before it is there."""
        if step.seq != self.seq + 1:
            return ()
        macs = (self._mac(step, before) for before in (self.mac, *self._others[-1:]))
        return tuple(mac for mac in macs if mac is not None)

    def _mac(self, step: ChainRecord, before: bytes) -> bytes | None:
        try:
            name = record_name(step.id, step.time_ms, self.chain, step.seq)
            return record_mac(self._keyed, before, step.version.digest, name, step.digest)
        except (
            AttributeError,
            TypeError,
            struct.error,
        ):  # it holds values that no writer can write
            return None

    def _accept(self, step: ChainRecord, edited: str) -> None:
        """Continue the chain with a record; a record in doubt was added."""
        if self._doubt is not None:
            self._report_added(self._doubt)
        faults = [fault for fault in (edited, step.fault) if fault]
        if faults:
            self._report_edited(step, ", and ".join(faults))
        if step.seq in self.heads_at:
            self._check_heads(step.seq, step.mac)
        self._continue_from(step, ())

    def _accept_in_doubt(self, doubt: ChainRecord) -> None:
        """Continue the chain through a record in doubt: it was edited, or follows a gap."""
        if doubt.seq == self.seq + 1:
            fault = doubt.fault and f", and {doubt.fault}"
            self._report_edited(
                doubt, f"its MAC does not fit what it says{fault}", doubt.version.misfits
            )
        else:
            first, last = self.seq + 1, doubt.seq - 1
            before = f"after {uuid7.text(self.last_id)} and " if self.last_id else ""
            what = (
                f"{_records(first, last)} gone, {before}before {uuid7.text(doubt.id)}, "
                "whose MAC therefore can't be checked"
            )
            self._report("removed record", what, first, last)
            if doubt.fault:
                self._report_edited(doubt, doubt.fault)
        self._continue_from(doubt, self._computed(doubt))

    def _continue_from(self, step: ChainRecord, others: tuple[bytes, ...]) -> None:
        self.seq, self.mac, self.last_id, self._others = step.seq, step.mac, step.id, others
        self._doubt = None
        self.calm = not others

    def _report_edited(self, step: ChainRecord, what: str, to: Findings | None = None) -> None:
        self._report_record(step, "edited record", what, to or self._findings)

    def _report_added(self, step: ChainRecord, to: Findings | None = None) -> None:
        what = "the chain does not continue through it"
        self._report_record(step, "added record", what, to or self._findings)

    def _report_record(self, step: ChainRecord, kind: str, what: str, to: Findings) -> None:
        record_id = uuid7.text(step.id)
        sentence = f"chain {self.chain}, record {step.seq} ({record_id}): {what}"
        to.add(AuditFinding(kind, sentence, self.chain, step.seq, step.seq, record_id))

    def _report(self, kind: str, what: str, first: int, last: int) -> None:
        sentence = f"chain {self.chain}, {what}"
        self._findings.add(AuditFinding(kind, sentence, self.chain, first, last))


def _records(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
