"""The chains of a ledger as they were opened, and what is known of their ends."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from peerloan.ledger.findings import Finding, Findings
from peerloan.ledger.seal import Head, Seal
from peerloan.ledger.walk import NamedHead, Sealed, Walk
from peerloan.loan.text import counted

_CHAINS = text("SELECT number, opened_ms, release, heads, mac, head_seq, head_mac FROM chains")


class Chains:
    """Every chain's walk, begun at its opening."""

    def __init__(
        self,
        connection: Connection,
        seal: Seal,
        heads: Sequence[Head],
        versions: Mapping[int, Sealed],
        findings: Findings,
    ) -> None:
        self._findings = findings
        # Whether an opening's MAC fits.
        self.fits = False
        # Each chain's heads, whoever wrote them down: also of chains that are not there.
        self._named: dict[int, list[NamedHead]] = {}
        openings: dict[int, tuple[Any, bytes | None]] = {}
        for row in connection.execute(_CHAINS):
            openings[row.number] = row.mac, self._opening(seal, row)
        for head in heads:
            if head.chain in openings and head.opened not in _digits(*openings[head.chain]):
                what = (
                    f"chain {head.chain}: the seal's folder knows one with "
                    f"{counted(head.seq, 'record')} that was opened otherwise; this is another"
                )
                findings.add(Finding("missing chain", what, head.chain))
            else:
                self._name(head.chain, head.seq, head.mac, "the seal's folder")
        self.walks = {
            number: Walk(number, seal.keyed, versions, findings, self._named.get(number, ()))
            for number in openings
        }
        for number, opening in openings.items():
            self.walks[number].open(*opening)

    def _opening(self, seal: Seal, row: Any) -> bytes | None:
        """A chain's MAC as it should be; what it names counts only if it is so."""
        for digits in _digits(row.head_mac):
            self._name(row.number, row.head_seq, digits, "the table `chains`")
        try:
            heads = json.loads(row.heads)
            mac = seal.opening(row.number, row.opened_ms, row.release, heads)
        except (OverflowError, TypeError, ValueError):  # no writer wrote that
            mac = None
        if mac != row.mac:
            what = f"chain {row.number}: its MAC does not fit how it was opened"
            self._findings.add(Finding("edited chain", what, row.number))
            return mac
        self.fits = True
        for chain, seq, digits in heads:
            self._name(chain, seq, digits, f"the opening of chain {row.number}")
        return mac

    def _name(self, chain: int, seq: object, mac: str, source: str) -> None:
        heads = self._named.setdefault(chain, [])
        if isinstance(seq, int) and seq > 0:
            heads.append(NamedHead(seq, mac, source))

    def name_missing(self, records: Mapping[int, int]) -> None:
        """Say which chains are not there, given how many records there are of such."""
        for first, last in self._missing({*self._named, *records}):
            told = f"chain {first} is" if first == last else f"chains {first} to {last} are"
            what = f"{told} not in the table `chains`"
            left = sum(count for number, count in records.items() if first <= number <= last)
            if left:
                what += f", though {counted(left, 'record')} of it are there"
            heads = [h for n, each in self._named.items() if first <= n <= last for h in each]
            if heads:
                head = max(heads)
                what += f"; {head.source} knows it to have had {counted(head.seq, 'record')}"
            self._findings.add(Finding("missing chain", what, first))

    def _missing(self, named: set[int]) -> Iterator[tuple[int, int]]:
        """The numbers that no chain has: from the first to the last of each gap."""
        numbers = sorted(self.walks)
        for before, after in itertools.pairwise((0, *numbers)):
            if after - before > 1:
                yield before + 1, after - 1
        between = range(1, max(numbers, default=0) + 1)
        yield from ((number, number) for number in sorted(named) if number not in between)


def _digits(*macs: object) -> list[str]:
    return [mac.hex() for mac in macs if isinstance(mac, bytes)]
