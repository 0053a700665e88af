"""Opening a chain: its number, and the heads of others that it names.

An opening names the heads of all chains that are open, and of those that were closed since the
opening before it. So every chain but the newest is named up to its end, and each end is named once.
"""

from __future__ import annotations

import json
import logging
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, text, update

from peerloan import __version__, uuid7
from peerloan.clock import now_ms
from peerloan.database import tables
from peerloan.database.engine import Database
from peerloan.ledger.chain_heads import Head
from peerloan.ledger.seal import NamedHeads, Seal
from peerloan.ledger.seal_ownership import expect_own, newest_opening

log = logging.getLogger(__name__)
# A chain whose writer was not seen for so long has no writer any more.
DEAD_MS = 300_000
# Heads are written down so often; a chain goes on by at most so much after its head.
HEAD_MS = 60_000


class Opening(NamedTuple):
    """A chain as it was opened."""

    number: int
    opened_ms: int
    mac: bytes


def open_chain(database: Database, seal: Seal) -> Opening:
    """Add a chain to the ledger. Raises LedgerError, and OSError where no head can be written."""
    table = tables.chains
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("LOCK TABLE chains IN EXCLUSIVE MODE"))
        expect_own(connection, seal)
        opened_ms = now_ms()
        newest, named = newest_opening(connection, seal)
        # A chain that vanished from the table keeps its number: else nothing would miss it.
        known = seal.files.newest_chain(newest)
        _begin_newest(seal, known, newest, named)
        number = known + 1
        heads = _closed_heads(connection, newest, named)
        heads = sorted([*heads, *_open_heads(connection, opened_ms), _own_head(number)])
        mac = seal.opening(number, opened_ms, __version__, heads)
        connection.execute(
            insert(table).values(
                number=number,
                opened_ms=opened_ms,
                release=__version__,
                heads=json.dumps(heads),
                mac=mac,
                seen_ms=opened_ms,
                head_id=None,
                head_seq=0,
                head_mac=mac,
                closed=False,
            )
        )
        # Before the commit: a chain without a head would look as if its head had been removed.
        seal.files.announce(Head(number, 0, mac.hex(), mac.hex(), opened_ms, closed=False))
    return Opening(number, opened_ms, mac)


def seals_heads(number: int, heads: NamedHeads) -> bool:
    """Whether a chain's writer gives each of its heads a MAC: its opening says so by naming itself,
    which a release before passes over.
    """
    return _own_head(number) in heads


def _begin_newest(seal: Seal, known: int, newest: int, named: NamedHeads | None) -> None:
    """Write down the newest chain's number where no release before did."""
    if seal.files.newest_path.exists() or (named is not None and seals_heads(newest, named)):
        return
    if known == 0:
        # None is begun: `verify` is to go on saying so.
        log.warning(
            "%s: holds a key, but no chain's head, and the ledger has no chain: no decision was "
            "kept before, or all were removed",
            seal.folder,
        )
        return
    seal.files.begin_newest(known)


def _own_head(number: int) -> tuple[int, int, str]:
    return number, 0, ""


def _open_heads(connection: Connection, opened_ms: int) -> NamedHeads:
    """The heads of the open chains; those whose writers are gone are closed."""
    table = tables.chains
    columns = (table.c.number, table.c.head_id, table.c.seen_ms, table.c.head_seq, table.c.head_mac)
    heads: NamedHeads = []
    for row in connection.execute(select(*columns).where(~table.c.closed).order_by(table.c.number)):
        seq, mac = _head(connection, row.number, row.head_id, row.seen_ms) or (
            row.head_seq,
            row.head_mac,
        )
        heads.append((row.number, seq, mac.hex()))
        if row.seen_ms < opened_ms - DEAD_MS:
            connection.execute(
                update(table)
                .where(table.c.number == row.number)
                .values(closed=True, head_seq=seq, head_mac=mac)
            )
    return heads


def _closed_heads(connection: Connection, newest: int, named: NamedHeads | None) -> NamedHeads:
    """The last heads of the closed chains that no opening has named yet."""
    table = tables.chains
    before: dict[int, tuple[int, str]] | None = None
    # One of a release before named open chains only: then all that are closed are named once.
    if named is not None and seals_heads(newest, named):
        before = {chain: (seq, mac) for chain, seq, mac in named}
    columns = (table.c.number, table.c.head_seq, table.c.head_mac)
    heads: NamedHeads = []
    for row in connection.execute(select(*columns).where(table.c.closed).order_by(table.c.number)):
        head = row.head_seq, row.head_mac.hex()
        if before is None or (row.number in before and before[row.number] != head):
            heads.append((row.number, *head))
    return heads


def _head(
    connection: Connection, chain: int, head_id: object, seen_ms: int
) -> tuple[int, bytes] | None:
    """The newest record of a chain after the head that was written down, if there is one."""
    table = tables.decisions
    low = uuid7.first_at(seen_ms - HEAD_MS) if head_id is None else head_id
    found = connection.execute(
        select(table.c.seq, table.c.mac)
        .where(table.c.id > low, table.c.id < uuid7.first_at(seen_ms + 2 * HEAD_MS))
        .where(table.c.chain == chain)
        .order_by(table.c.id.desc())
        .limit(1)
    ).first()
    return None if found is None else (found.seq, found.mac)
