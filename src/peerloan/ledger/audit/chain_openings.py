"""Checks how the chains were opened, and whether their heads exist."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from peerloan.formatting import plural
from peerloan.ledger.audit.chain_walk import ChainWalk, RecordedHead, SealedVersion
from peerloan.ledger.audit.findings import AuditFinding, Findings
from peerloan.ledger.chain_heads import EditedHead, Head, NewestChain, StoredHeads
from peerloan.ledger.seal import Seal
from peerloan.ledger.seal_ownership import OPENINGS, opening_heads, opening_mac
from peerloan.ledger.write.chain_opening import heads_have_macs


class SealFiles(NamedTuple):
    """The files of the seal's folder, read before the database."""

    heads: StoredHeads
    newest: NewestChain | EditedHead | None

    @classmethod
    def read(cls, seal: Seal) -> SealFiles:
        """Read the files. Raises LedgerError."""
        return cls(seal.files.read_all(), seal.files.read_newest())


class _OpeningMacs(NamedTuple):
    """The MAC of a chain's opening, as stored and as computed from its row."""

    stored: bytes
    computed: bytes | None


class ChainWalks:
    """One walk for each chain in the table `chains`, started after the chain's opening."""

    def __init__(
        self,
        connection: Connection,
        seal: Seal,
        seal_files: SealFiles,
        versions: Mapping[int, SealedVersion],
        findings: Findings,
    ) -> None:
        """Read the openings and compare them with the files, in a snapshot of the database."""
        self._seal, self._seal_files, self._findings = seal, seal_files, findings
        # Whether the MAC of any opening matches.
        self.has_match = False
        # Heads by chain, from all sources; also those of missing chains.
        self._heads: dict[int, list[RecordedHead]] = {}
        # Chains whose writers give each head a MAC.
        self._with_head_macs: set[int] = set()
        self._openings: dict[int, _OpeningMacs] = {}
        for row in connection.execute(text(OPENINGS)):
            self._openings[row.number] = _OpeningMacs(row.mac, self._check_opening(row))
        for head in seal_files.heads.valid:
            if self._belongs_to_chain(head):
                self._add_head(head.chain, head.seq, head.mac, "the seal's folder")
        for edited in seal_files.heads.edited:
            self._report("edited head", f"chain {edited.chain}: {edited.what}", edited.chain)
        # Chains with an announcement and no head: their writers were killed while opening them.
        self._announced = self._find_missing_heads()
        self.walks = {
            number: ChainWalk(
                number, seal.mac_template, versions, findings, self._heads.get(number, ())
            )
            for number in self._openings
        }
        for number, opening in self._openings.items():
            self.walks[number].start_after_opening(*opening)

    def _check_opening(self, row: Any) -> bytes | None:
        """Return the MAC that an opening should have. Its heads count only if its MAC matches."""
        for digits in _digits(row.head_mac):
            self._add_head(row.number, row.head_seq, digits, "the table `chains`")
        mac = opening_mac(self._seal, row)
        if mac is None or mac != row.mac:
            what = f"chain {row.number}: the MAC of its opening does not match the opening's row"
            self._report("edited chain", what, row.number)
            return mac
        self.has_match = True
        heads = opening_heads(row) or []
        if heads_have_macs(row.number, heads):
            self._with_head_macs.add(row.number)
        for chain, seq, digits in heads:
            self._add_head(chain, seq, digits, f"the opening of chain {row.number}")
        return mac

    def _belongs_to_chain(self, head: Head) -> bool:
        """Return whether a head belongs to the chain in the table; report it if not."""
        if head.chain in self._openings and head.opened not in _digits(*self._openings[head.chain]):
            what = (
                f"chain {head.chain}: is not the chain whose head is in the seal's folder; that "
                f"chain has {plural(head.seq, 'record')} and another opening"
            )
            self._report("missing chain", what, head.chain)
            return False
        if not head.seal and head.chain in self._with_head_macs:
            path = self._seal.files.path(head.chain)
            what = f"chain {head.chain}: {path} has no MAC, but its writer gives each head a MAC"
            self._report("edited head", what, head.chain)
            return False
        return True

    def _find_missing_heads(self) -> set[int]:
        """Find and report chains without a head. Returns those that were only announced."""
        heads = self._seal_files.heads
        with_head = {head.chain for head in heads.valid} | {head.chain for head in heads.edited}
        announced, missing = set(), []
        for number in sorted(set(self._openings) - with_head):
            files = self._seal.files
            # The chain may have been opened after the heads were read. It loses its announcement
            # once it has a head.
            head = files.read_head(number)
            announcement = None if head else files.read_announcement(number)
            if (
                isinstance(announcement, Head)
                and _is_valid_announcement(announcement)
                and self._belongs_to_chain(announcement)
            ):
                announced.add(number)
                continue
            head = head or files.read_head(number)
            if not (isinstance(head, Head) and self._belongs_to_chain(head)):
                missing.append(number)
        self._report_missing_heads(missing)
        return announced

    def _report_missing_heads(self, chains: Iterable[int]) -> None:
        for first, last in _runs(chains):
            if first == last:
                what = f"chain {first} has no head in {self._seal.files.folder}: the file was"
            else:
                folder = self._seal.files.folder
                what = f"chains {first} to {last} have no heads in {folder}: the files were"
            what += (
                " removed, and records at a chain's end may have been removed unnoticed; restore "
                "what is missing from a backup of the folder"
            )
            self._report("missing head", what, first)

    def _add_head(self, chain: int, seq: object, mac: str, source: str) -> None:
        heads = self._heads.setdefault(chain, [])
        if isinstance(seq, int) and seq > 0:
            heads.append(RecordedHead(seq, mac, source))

    def report_missing(self, records: Mapping[int, int]) -> None:
        """Report missing chains and heads, after the walks.

        `records` has the numbers of records of chains that are not in the table `chains`.
        """
        self._report_missing_heads(number for number in self._announced if self.walks[number].seq)
        self._report_newest()
        for first, last in self._missing_runs({*self._heads, *records}):
            chains_are = f"chain {first} is" if first == last else f"chains {first} to {last} are"
            what = f"{chains_are} not in the table `chains`"
            count = sum(count for number, count in records.items() if first <= number <= last)
            if count:
                what += f", though the table `decisions` has {plural(count, 'record')} of it"
            heads = [
                head
                for number, chain_heads in self._heads.items()
                if first <= number <= last
                for head in chain_heads
            ]
            if heads:
                head = max(heads)
                what += f"; by {head.source} it had {plural(head.seq, 'record')}"
            elif last <= self._newest_number():
                path = self._seal.files.newest_path
                what += f"; by {path} {plural(self._newest_number(), 'chain')} were opened"
            self._report("missing chain", what, first)

    def _report_newest(self) -> None:
        """Report a missing or edited file with the number of the newest chain."""
        newest, path = self._seal_files.newest, self._seal.files.newest_path
        if isinstance(newest, EditedHead):
            self._report("edited head", newest.what)
        # Older releases wrote no such file. This release writes it before it opens its first chain.
        elif newest is None and (self._with_head_macs or not (self.walks or self._heads)):
            what = "and the ledger has no chain: all were removed, or none was opened yet"
            if self.walks:
                what = (
                    "so the newest chains may have been removed unnoticed; restore it from its "
                    "backup"
                )
            self._report("missing head", f"{path} is missing, {what}")

    def _newest_number(self) -> int:
        newest = self._seal_files.newest
        return newest.chain if isinstance(newest, NewestChain) else 0

    def _missing_runs(self, numbers_elsewhere: set[int]) -> Iterator[tuple[int, int]]:
        """Yield the first and last number of each run of chains that are missing in the table.

        `numbers_elsewhere` are the chains that records or heads name.
        """
        numbers = sorted(self.walks)
        end = max((self._newest_number(), *numbers[-1:]))
        for before, after in itertools.pairwise((0, *numbers, end + 1)):
            if after - before > 1:
                yield before + 1, after - 1
        for number in sorted(numbers_elsewhere):
            if not 1 <= number <= end:
                yield number, number

    def _report(self, kind: str, what: str, chain: int | None = None) -> None:
        self._findings.add(AuditFinding(kind, what, chain))


def _is_valid_announcement(head: Head) -> bool:
    """Return whether an announcement has a MAC, and is of an open chain without records."""
    return bool(head.seal) and head.seq == 0 and head.mac == head.opened and not head.closed


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Group numbers into runs of consecutive ones; yield the first and the last of each."""
    first = last = None
    for number in sorted(numbers):
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last


def _digits(*macs: object) -> list[str]:
    """Return the hexadecimal digits of the MACs that are bytes; an edited one may not be."""
    return [mac.hex() for mac in macs if isinstance(mac, bytes)]
