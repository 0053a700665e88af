"""Walks a chain record by record, in the order of ids, and finds edited, added and removed records.

A record's MAC covers the MAC of the record before it. If a record's MAC does not match, the record
is a suspect, and the records after it show what happened:

| the next record continues from | so the suspect was |
|---|---|
| the suspect's MAC | edited, or records before it were removed |
| the record before the suspect | added |

At the chain's end, where no record follows, the stored heads decide.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from peerloan import uuid7
from peerloan.ledger.audit.findings import AuditFinding, Findings
from peerloan.ledger.seal import pack_place, record_mac


class SealedVersion:
    """A model version, and its digest, which the MACs of its records cover."""

    def __init__(self, number: int, name: str | None = None, digest: bytes = b"") -> None:
        """`name` is None for a version that is not in the ledger."""
        self.number = number
        self.name = name
        self.digest = digest
        # Whether the MAC of any of its records matches.
        self.has_match = False
        # Its records whose MACs don't match. If none matches, the version's row was edited instead.
        self.mismatches = Findings()


class ChainRecord(NamedTuple):
    """A record as the audit needs it. `fault` is what is wrong with its values; "": nothing."""

    id: bytes
    time_ms: int
    seq: int
    version: SealedVersion
    digest: bytes
    mac: bytes
    fault: str


class RecordedHead(NamedTuple):
    """A chain's head: number and MAC (in hexadecimal digits) of its newest record at some time.

    `source` is where the head is recorded.
    """

    seq: int
    mac: str
    source: str


class ChainWalk:
    """A walk along one chain. `seq` and `mac` are those of the last record in the chain so far."""

    def __init__(
        self,
        chain: int,
        mac_template: hmac.HMAC,
        versions: Mapping[int, SealedVersion],
        findings: Findings,
        heads: Sequence[RecordedHead] = (),
    ) -> None:
        self.chain = chain
        self.seq = 0
        self.mac = b""
        self.last_id: bytes | None = None
        # Whether a record whose MAC matches after `mac` needs no further check.
        self.is_certain = True
        self._mac_template = mac_template
        self._versions = versions
        self._findings = findings
        self._heads = heads
        self.head_seqs = {head.seq for head in heads}
        # If the stored MAC of the last record does not match: the MACs that are computed from its
        # content, after the stored MAC and after the computed MAC of the record before it.
        self._computed_macs: tuple[bytes, ...] = ()
        self._suspect: ChainRecord | None = None

    def start_after_opening(self, stored: bytes, computed: bytes | None) -> None:
        """Start after the chain's opening; `stored` and `computed` are its MACs."""
        self.mac = stored
        self._computed_macs = () if computed in (None, stored) else (computed,)
        self.is_certain = not self._computed_macs

    def start_at(self, record: ChainRecord) -> None:
        """Start with a record, if the opening is missing."""
        self._continue_from(record, ())

    def try_continue(self, record: ChainRecord) -> bool:
        """Take the next record by id if the chain continues with it. Returns whether it does."""
        suspect = self._suspect
        if record.seq == self.seq + 1:
            edit = self._find_edit(record, self.mac, *self._computed_macs)
            if edit is not None:
                self._accept(record, edit)
                return True
        if suspect is not None and record.seq == suspect.seq + 1:
            edit = self._find_edit(record, suspect.mac, *self._compute_macs(suspect))
            if edit is not None:
                self._accept_suspect(suspect)
                self._accept(record, edit)
                return True
        return False

    def try_edited_place(self, record: ChainRecord) -> bool:
        """Take a record if it continues this chain, although it has another chain or number."""
        original = record._replace(seq=self.seq + 1)
        if self._compute_mac(original, self.mac) != record.mac:
            return False
        record.version.has_match = True
        self._accept(original, "its chain or number is not the one that it was sealed with")
        return True

    def hold_as_suspect(self, record: ChainRecord) -> None:
        """Hold a record with which the chain does not continue; later records decide."""
        suspect = self._suspect
        if record.seq <= self.seq:
            self._report_added(record)
            return
        if suspect is not None:
            if record.seq <= suspect.seq:
                self._report_added(suspect)
            else:
                self._accept_suspect(suspect)
        self._suspect = record
        self.is_certain = False

    def finish(self) -> None:
        """Finish the walk: decide about the suspect, and find a cut-off end."""
        suspect = self._suspect
        if suspect is not None:
            last_seq = max(self.head_seqs, default=0)
            if suspect.seq > self.seq + 1 or last_seq >= suspect.seq:
                self._accept_suspect(suspect)
            else:
                self._report_added(suspect, suspect.version.mismatches)
        beyond = [head for head in self._heads if head.seq > self.seq]
        if beyond:
            last_seq = max(beyond)[0]
            sources = ", ".join(dict.fromkeys(head.source for head in beyond))
            after = f"after {uuid7.text(self.last_id)}" if self.last_id else "all of them"
            self._report(
                "cut-off end",
                f"{_records_are(self.seq + 1, last_seq)} gone, {after}; recorded in {sources}",
                *(self.seq + 1, last_seq),
            )

    def _check_heads(self, seq: int, mac: bytes) -> None:
        """Check that the recorded heads have the same MAC for a record."""
        for head in self._heads:
            if head.seq == seq and head.mac != mac.hex():
                what = f"{head.source} has another MAC for record {seq}"
                self._report("cut-off end", what, seq, seq)

    def _find_edit(self, record: ChainRecord, *previous_macs: bytes) -> str | None:
        """Return what was edited ("": nothing) in a record that continues from one of these MACs.

        None if it continues from none of them.
        """
        for previous_mac in previous_macs:
            if self._compute_mac(record, previous_mac) == record.mac:
                record.version.has_match = True
                return ""
            id_ms = uuid7.milliseconds(record.id)
            if self._compute_mac(record._replace(time_ms=id_ms), previous_mac) == record.mac:
                record.version.has_match = True
                return "its time is not the one that it was sealed with"
            for version in self._versions.values():
                if self._compute_mac(record._replace(version=version), previous_mac) == record.mac:
                    version.has_match = True
                    return f"it was sealed with another model version: {version.name}"
        return None

    def _compute_macs(self, record: ChainRecord) -> tuple[bytes, ...]:
        """Compute the MACs that a record may have by its content, if it follows the last record."""
        if record.seq != self.seq + 1:
            return ()
        previous_macs = (self.mac, *self._computed_macs[-1:])
        macs = (self._compute_mac(record, previous_mac) for previous_mac in previous_macs)
        return tuple(mac for mac in macs if mac is not None)

    def _compute_mac(self, record: ChainRecord, previous_mac: bytes) -> bytes | None:
        """Compute a record's MAC; None if it contains values that no writer can write."""
        try:
            place = pack_place(record.id, record.time_ms, self.chain, record.seq)
            version = record.version.digest
            return record_mac(self._mac_template, previous_mac, version, place, record.digest)
        except (AttributeError, TypeError, struct.error):
            return None

    def _accept(self, record: ChainRecord, edit: str) -> None:
        """Continue the chain with a record. If there is a suspect, it was added."""
        if self._suspect is not None:
            self._report_added(self._suspect)
        faults = [fault for fault in (edit, record.fault) if fault]
        if faults:
            self._report_edited(record, ", and ".join(faults))
        if record.seq in self.head_seqs:
            self._check_heads(record.seq, record.mac)
        self._continue_from(record, ())

    def _accept_suspect(self, suspect: ChainRecord) -> None:
        """Continue the chain with the suspect: it was edited, or records before it were removed."""
        if suspect.seq == self.seq + 1:
            fault = suspect.fault and f", and {suspect.fault}"
            what = f"its MAC does not match its content{fault}"
            self._report_edited(suspect, what, suspect.version.mismatches)
        else:
            first, last = self.seq + 1, suspect.seq - 1
            after = f"after {uuid7.text(self.last_id)} and " if self.last_id else ""
            what = (
                f"{_records_are(first, last)} gone, {after}before {uuid7.text(suspect.id)}, "
                "whose MAC therefore can't be checked"
            )
            self._report("removed record", what, first, last)
            if suspect.fault:
                self._report_edited(suspect, suspect.fault)
        self._continue_from(suspect, self._compute_macs(suspect))

    def _continue_from(self, record: ChainRecord, computed_macs: tuple[bytes, ...]) -> None:
        self.seq, self.mac, self.last_id = record.seq, record.mac, record.id
        self._computed_macs = computed_macs
        self._suspect = None
        self.is_certain = not computed_macs

    def _report_edited(self, record: ChainRecord, what: str, to: Findings | None = None) -> None:
        self._report_record(record, "edited record", what, to or self._findings)

    def _report_added(self, record: ChainRecord, to: Findings | None = None) -> None:
        what = "the chain does not continue from it"
        self._report_record(record, "added record", what, to or self._findings)

    def _report_record(self, record: ChainRecord, kind: str, what: str, to: Findings) -> None:
        record_id = uuid7.text(record.id)
        sentence = f"chain {self.chain}, record {record.seq} ({record_id}): {what}"
        to.add(AuditFinding(kind, sentence, self.chain, record.seq, record.seq, record_id))

    def _report(self, kind: str, what: str, first: int, last: int) -> None:
        sentence = f"chain {self.chain}, {what}"
        self._findings.add(AuditFinding(kind, sentence, self.chain, first, last))


def _records_are(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
