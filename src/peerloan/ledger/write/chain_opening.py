"""Opens a chain: gives it a number, and stores the heads of other chains in its opening.

An opening names the heads of all open chains, and of those closed since the previous opening. So
the end of every chain but the newest is named, and each end once.
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
from peerloan.ledger.seal_ownership import newest_opening, require_own_seal

log = logging.getLogger(__name__)
# A chain without a new head for this long has no writer any more.
DEAD_MS = 300_000
# Heads are written this often, so a chain is at most this much longer than its head.
HEAD_MS = 60_000


class Opening(NamedTuple):
    """The opening of a chain."""

    number: int
    opened_ms: int
    mac: bytes


def open_chain(database: Database, seal: Seal) -> Opening:
    """Add a chain to the ledger. Raises LedgerError, or OSError if no head can be written."""
    table = tables.chains
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("LOCK TABLE chains IN EXCLUSIVE MODE"))
        require_own_seal(connection, seal)
        opened_ms = now_ms()
        newest, named = newest_opening(connection, seal)
        # The number of a chain that vanished from the table is not reused, so that it is missed.
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
    """Return whether a chain's writer gives each of its heads a MAC.

    If so, the opening names itself. Older releases ignore that.
    """
    return _own_head(number) in heads


def _begin_newest(seal: Seal, known: int, newest: int, named: NamedHeads | None) -> None:
    """Write the newest chain's number if an older release did not."""
    if seal.files.newest_path.exists() or (named is not None and seals_heads(newest, named)):
        return
    if known == 0:
        # No file is written, so that `verify` keeps reporting it.
        log.warning(
            "%s: holds a key, but no chain's head, and the ledger has no chain: no decision was "
            "stored before, or all were removed",
            seal.folder,
        )
        return
    seal.files.begin_newest(known)


def _own_head(number: int) -> tuple[int, int, str]:
    return number, 0, ""


def _open_heads(connection: Connection, opened_ms: int) -> NamedHeads:
    """Return the heads of the open chains, and close those whose writers are gone."""
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
    """Return the last heads of the closed chains that no opening has named yet."""
    table = tables.chains
    before: dict[int, tuple[int, str]] | None = None
    # An opening by an older release named open chains only; then name all closed ones once.
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
    """Return the newest record of a chain after its stored head, if there is one."""
    table = tables.decisions
    low = uuid7.first_at(seen_ms - HEAD_MS) if head_id is None else head_id
    newest = connection.execute(
        select(table.c.seq, table.c.mac)
        .where(table.c.id > low, table.c.id < uuid7.first_at(seen_ms + 2 * HEAD_MS))
        .where(table.c.chain == chain)
        .order_by(table.c.id.desc())
        .limit(1)
    ).first()
    return None if newest is None else (newest.seq, newest.mac)
