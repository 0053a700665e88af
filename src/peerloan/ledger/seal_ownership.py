"""Checks that a seal belongs to a ledger: that its key is the one that opened the chains.

With another key nothing may be stored, since all earlier records would count as edited.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection, text

from peerloan.database.engine import Database
from peerloan.database.errors import LostSeal
from peerloan.ledger.seal import OpeningHeads, Seal, has_key, lost_key

log = logging.getLogger(__name__)
# Length of the longest valid list of heads: some 300,000 heads. No writer wrote a longer one.
_MAX_CHARACTERS = 32_000_000
# The openings of chains, read without SQLAlchemy's types: an edited value must not make them fail.
OPENINGS = (
    "SELECT number, opened_ms, release, mac, head_seq, head_mac, "  # noqa: S608
    f"CASE WHEN length(heads) <= {_MAX_CHARACTERS} THEN heads END AS heads FROM chains"
)
_NEWEST = text(f"{OPENINGS} ORDER BY number DESC LIMIT 1")
# If the newest opening does not match the key, these earlier ones are tried.
_EARLIER = text(f"{OPENINGS} ORDER BY number DESC LIMIT 20 OFFSET 1")
# Each returns a row if the ledger was written to before.
_ANY_ROW = (text("SELECT 1 FROM chains LIMIT 1"), text("SELECT 1 FROM decisions LIMIT 1"))
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_heads_decoder = msgspec.json.Decoder(list[tuple[_Number, _Number, str]])


def open_seal(folder: Path, database: Database) -> Seal:
    """Open the seal of a ledger; create the key of a new ledger.

    Raises LostSeal if the ledger has chains and the key is missing or is another one, LedgerError
    if the key can't be read, LedgerUnavailable if the database does not respond.
    """
    with database.reading() as connection:
        if not has_key(folder) and any(connection.execute(query).first() for query in _ANY_ROW):
            raise lost_key(folder, f"{database} contains sealed records")
        seal = Seal(folder)
        require_matching_key(connection, seal)
    return seal


def require_matching_key(connection: Connection, seal: Seal) -> None:
    """Raise LostSeal unless one of the newest chains was opened with this seal's key."""
    newest = connection.execute(_NEWEST).first()
    if newest is None or opening_mac(seal, newest) == newest.mac:
        return
    if not any(opening_mac(seal, row) == row.mac for row in connection.execute(_EARLIER)):
        raise LostSeal(
            f"{seal.folder / 'key'}: this key is not the one that opened the ledger's chains; "
            "restore that key from its backup, or set PEERLOAN_SEAL to its folder"
        )
    log.error(
        "chain %s was opened with another key, or its row was edited; run: peerloan ledger verify",
        newest.number,
    )


def newest_opening(connection: Connection, seal: Seal) -> tuple[int, OpeningHeads | None]:
    """Return the newest chain's number (0: no chain) and the heads that its opening lists.

    The heads are None if the MAC of the opening does not match.
    """
    row = connection.execute(_NEWEST).first()
    if row is None:
        return 0, None
    return row.number, opening_heads(row) if opening_mac(seal, row) == row.mac else None


def opening_heads(row: Any) -> OpeningHeads | None:
    """Parse the heads that a chain's opening lists; None if no writer can have written them."""
    try:
        return _heads_decoder.decode(row.heads)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return None


def opening_mac(seal: Seal, row: Any) -> bytes | None:
    """Compute the MAC of a chain's opening; None if no writer can have written the row."""
    heads = opening_heads(row)
    if heads is None:
        return None
    try:
        return seal.opening_mac(row.number, row.opened_ms, row.release, heads)
    except (OverflowError, TypeError, ValueError):
        return None
