"""Opens a chain: gives it a number, and stores the heads of other chains in its opening.

An opening is a sealed row of the table `chains`. It lists the heads of all open chains, and of the
chains that were closed since the previous opening. So a later opening shows if the end of an
earlier chain is removed, and each closed chain is listed once only.
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
from peerloan.ledger.seal import OpeningHeads, Seal
from peerloan.ledger.seal_ownership import newest_opening, require_matching_key

log = logging.getLogger(__name__)
# A chain without a new head for this long has no writer any more: it is abandoned.
ABANDONED_MS = 300_000
# Heads are written this often. So records after a head are at most this much younger.
HEAD_INTERVAL_MS = 60_000


class Opening(NamedTuple):
    """The opening of a chain, and its MAC."""

    number: int
    opened_ms: int
    mac: bytes


def open_chain(database: Database, seal: Seal) -> Opening:
    """Add a chain to the ledger.

    Raises LostSeal if the seal's key is not the ledger's, LedgerUnavailable, or OSError if the
    announcement can't be written.
    """
    table = tables.chains
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("LOCK TABLE chains IN EXCLUSIVE MODE"))
        require_matching_key(connection, seal)
        opened_ms = now_ms()
        newest, listed = newest_opening(connection, seal)
        # A number whose row was removed is not reused, so that `verify` reports the missing chain.
        highest = seal.files.highest_chain(newest)
        _create_newest_file(seal, highest, newest, listed)
        number = highest + 1
        heads = _closed_heads(connection, newest, listed)
        heads = sorted([*heads, *_open_heads(connection, opened_ms), head_of_itself(number)])
        mac = seal.opening_mac(number, opened_ms, __version__, heads)
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
        # Before the commit: a chain without a head or an announcement looks as if its head was
        # removed.
        seal.files.write_announcement(
            Head(number, 0, mac.hex(), mac.hex(), opened_ms, closed=False)
        )
    return Opening(number, opened_ms, mac)


def heads_have_macs(number: int, heads: OpeningHeads) -> bool:
    """Return whether the writer of a chain gives each of its heads a MAC, by the chain's opening.

    The opening of such a chain lists the chain itself. Older releases ignore that.
    """
    return head_of_itself(number) in heads


def head_of_itself(number: int) -> tuple[int, int, str]:
    """Return the head by which an opening lists its own chain, which has no records yet."""
    return number, 0, ""


def _create_newest_file(seal: Seal, highest: int, newest: int, listed: OpeningHeads | None) -> None:
    """Write the newest chain's number if the file is missing because of an older release."""
    if seal.files.newest_path.exists() or (listed is not None and heads_have_macs(newest, listed)):
        return
    if highest == 0:
        # No file is written, so that `verify` keeps reporting it.
        log.warning(
            "%s: contains a key, but no head of a chain, and the ledger has no chain: no decision "
            "was stored before, or all were removed",
            seal.folder,
        )
        return
    seal.files.create_newest(highest)


def _open_heads(connection: Connection, opened_ms: int) -> OpeningHeads:
    """Return the heads of the open chains, and close those that are abandoned."""
    table = tables.chains
    columns = (table.c.number, table.c.head_id, table.c.seen_ms, table.c.head_seq, table.c.head_mac)
    heads: OpeningHeads = []
    for row in connection.execute(select(*columns).where(~table.c.closed).order_by(table.c.number)):
        newest = _newest_record(connection, row.number, row.head_id, row.seen_ms)
        seq, mac = newest or (row.head_seq, row.head_mac)
        heads.append((row.number, seq, mac.hex()))
        if row.seen_ms < opened_ms - ABANDONED_MS:
            connection.execute(
                update(table)
                .where(table.c.number == row.number)
                .values(closed=True, head_seq=seq, head_mac=mac)
            )
    return heads


def _closed_heads(connection: Connection, newest: int, listed: OpeningHeads | None) -> OpeningHeads:
    """Return the last heads of the closed chains that no opening lists yet.

    `newest` is the number of the newest chain, `listed` are the heads that its opening lists.
    """
    table = tables.chains
    previous: dict[int, tuple[int, str]] | None = None
    # The openings of older releases list open chains only. After one of them list all closed ones.
    if listed is not None and heads_have_macs(newest, listed):
        previous = {chain: (seq, mac) for chain, seq, mac in listed}
    columns = (table.c.number, table.c.head_seq, table.c.head_mac)
    heads: OpeningHeads = []
    for row in connection.execute(select(*columns).where(table.c.closed).order_by(table.c.number)):
        head = row.head_seq, row.head_mac.hex()
        if previous is None or (row.number in previous and previous[row.number] != head):
            heads.append((row.number, *head))
    return heads


def _newest_record(
    connection: Connection, chain: int, head_id: object, seen_ms: int
) -> tuple[int, bytes] | None:
    """Return number and MAC of a chain's newest record after its stored head, if there is one."""
    table = tables.decisions
    lowest = uuid7.first_at(seen_ms - HEAD_INTERVAL_MS) if head_id is None else head_id
    newest = connection.execute(
        select(table.c.seq, table.c.mac)
        .where(table.c.id > lowest, table.c.id < uuid7.first_at(seen_ms + 2 * HEAD_INTERVAL_MS))
        .where(table.c.chain == chain)
        .order_by(table.c.id.desc())
        .limit(1)
    ).first()
    return None if newest is None else (newest.seq, newest.mac)
