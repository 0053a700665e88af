"""Checks how the chains were opened, and whether their heads are there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from peerloan.formatting import plural
from peerloan.ledger.audit.chain_walk import ChainWalk, NamedHead, SealedVersion
from peerloan.ledger.audit.findings import AuditFinding, Findings
from peerloan.ledger.chain_heads import EditedHead, Head, NewestChain, StoredHeads
from peerloan.ledger.seal import Seal
from peerloan.ledger.seal_ownership import OPENINGS, opening_heads, opening_mac
from peerloan.ledger.write.chain_opening import seals_heads

_REMOVED = "it was removed, and ends of chains may be gone unseen; put it back from its backup"


class SealFiles(NamedTuple):
    """The files of the seal's folder, read before the database."""

    heads: StoredHeads
    newest: NewestChain | EditedHead | None

    @classmethod
    def read(cls, seal: Seal) -> SealFiles:
        """Read the files. Raises LedgerError."""
        return cls(seal.files.read_all(), seal.files.newest())


class ChainWalks:
    """The walk of every chain, each started at its opening."""

    def __init__(
        self,
        connection: Connection,
        seal: Seal,
        written: SealFiles,
        versions: Mapping[int, SealedVersion],
        findings: Findings,
    ) -> None:
        self._seal, self._written, self._findings = seal, written, findings
        # Whether any opening's MAC fits.
        self.fits = False
        # Heads by chain, from any source; also of chains that are missing.
        self._named: dict[int, list[NamedHead]] = {}
        # Chains whose writers give each head a MAC.
        self._sealing: set[int] = set()
        self._openings: dict[int, tuple[Any, bytes | None]] = {}
        for row in connection.execute(text(OPENINGS)):
            self._openings[row.number] = row.mac, self._opening(row)
        for head in written.heads.good:
            if self._is_own(head):
                self._name(head.chain, head.seq, head.mac, "the seal's folder")
        for edited in written.heads.edited:
            self._find("edited head", f"chain {edited.chain}: {edited.what}", edited.chain)
        # Chains without a head whose writers were killed while opening them.
        self._begun = self._find_missing_heads()
        self.walks = {
            number: ChainWalk(number, seal.keyed, versions, findings, self._named.get(number, ()))
            for number in self._openings
        }
        for number, opening in self._openings.items():
            self.walks[number].start_after_opening(*opening)

    def _opening(self, row: Any) -> bytes | None:
        """Return the MAC that an opening should have. Its heads count only if its MAC fits."""
        for digits in _digits(row.head_mac):
            self._name(row.number, row.head_seq, digits, "the table `chains`")
        mac = opening_mac(self._seal, row)
        if mac is None or mac != row.mac:
            what = f"chain {row.number}: its MAC does not fit how it was opened"
            self._find("edited chain", what, row.number)
            return mac
        self.fits = True
        heads = opening_heads(row) or []
        if seals_heads(row.number, heads):
            self._sealing.add(row.number)
        for chain, seq, digits in heads:
            self._name(chain, seq, digits, f"the opening of chain {row.number}")
        return mac

    def _is_own(self, head: Head) -> bool:
        """Return whether a head belongs to the chain in the table; if not, add a finding."""
        if head.chain in self._openings and head.opened not in _digits(*self._openings[head.chain]):
            what = (
                f"chain {head.chain}: is not the chain that the seal's folder knows, which has "
                f"{plural(head.seq, 'record')} and another opening"
            )
            self._find("missing chain", what, head.chain)
            return False
        if not head.seal and head.chain in self._sealing:
            path = self._seal.files.path(head.chain)
            what = f"chain {head.chain}: {path} has no MAC, which its writer gives it"
            self._find("edited head", what, head.chain)
            return False
        return True

    def _find_missing_heads(self) -> set[int]:
        """Find chains without a head. Returns those that were only announced."""
        heads = self._written.heads
        written = {each.chain for each in heads.good} | {each.chain for each in heads.edited}
        begun, missing = set(), []
        for number in sorted(set(self._openings) - written):
            files = self._seal.files
            # The chain may have been opened after the heads were read. It loses its announcement
            # once it has a head.
            head = files.read(number)
            announced = None if head else files.announced(number)
            if isinstance(announced, Head) and _is_new(announced) and self._is_own(announced):
                begun.add(number)
                continue
            head = head or files.read(number)
            if not (isinstance(head, Head) and self._is_own(head)):
                missing.append(number)
        self._find_without_heads(missing)
        return begun

    def _find_without_heads(self, chains: Iterable[int]) -> None:
        for first, last in _runs(chains):
            chains_have = (
                f"chain {first} has" if first == last else f"chains {first} to {last} have"
            )
            what = f"{chains_have} no head in {self._seal.files.folder}: {_REMOVED}"
            self._find("missing head", what, first)

    def _name(self, chain: int, seq: object, mac: str, source: str) -> None:
        heads = self._named.setdefault(chain, [])
        if isinstance(seq, int) and seq > 0:
            heads.append(NamedHead(seq, mac, source))

    def name_missing(self, records: Mapping[int, int]) -> None:
        """Find missing chains and heads; `records` counts the records of missing chains."""
        self._find_without_heads(number for number in self._begun if self.walks[number].seq)
        self._name_newest()
        for first, last in self._missing({*self._named, *records}):
            chains_are = f"chain {first} is" if first == last else f"chains {first} to {last} are"
            what = f"{chains_are} not in the table `chains`"
            left = sum(count for number, count in records.items() if first <= number <= last)
            if left:
                what += f", though {plural(left, 'record')} of it are there"
            heads = [h for n, each in self._named.items() if first <= n <= last for h in each]
            if heads:
                head = max(heads)
                what += f"; {head.source} knows it to have had {plural(head.seq, 'record')}"
            elif last <= self._newest():
                what += (
                    f"; {self._seal.files.newest_path} knows {self._newest()} to have been opened"
                )
            self._find("missing chain", what, first)

    def _name_newest(self) -> None:
        """Find a missing or edited number of the newest chain."""
        newest, path = self._written.newest, self._seal.files.newest_path
        if isinstance(newest, EditedHead):
            self._find("edited head", newest.what)
        # Older releases wrote no such file. This release writes it before it opens its first chain.
        elif newest is None and (self._sealing or not (self.walks or self._named)):
            what = "and no chain is: all were removed, or none was opened yet"
            if self.walks:
                what = "so that the newest chains may be gone unseen; put it back from its backup"
            self._find("missing head", f"{path} is not there, {what}")

    def _newest(self) -> int:
        newest = self._written.newest
        return newest.chain if isinstance(newest, NewestChain) else 0

    def _missing(self, named: set[int]) -> Iterator[tuple[int, int]]:
        """Yield the gaps in the numbers of chains, as the first and last missing number."""
        numbers = sorted(self.walks)
        end = max((self._newest(), *numbers[-1:]))
        for before, after in itertools.pairwise((0, *numbers, end + 1)):
            if after - before > 1:
                yield before + 1, after - 1
        yield from ((number, number) for number in sorted(named) if not 1 <= number <= end)

    def _find(self, kind: str, what: str, chain: int | None = None) -> None:
        self._findings.add(AuditFinding(kind, what, chain))


def _is_new(head: Head) -> bool:
    """Return whether an announcement is valid: sealed, open, and without records."""
    return bool(head.seal) and head.seq == 0 and head.mac == head.opened and not head.closed


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Group numbers into runs; yields the first and the last of each."""
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
    return [mac.hex() for mac in macs if isinstance(mac, bytes)]
