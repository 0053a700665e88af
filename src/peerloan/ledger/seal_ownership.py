"""Checks that a seal is the ledger's own: with another key nothing may be stored."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection, text

from peerloan.database.engine import Database
from peerloan.database.errors import LostSeal
from peerloan.ledger.seal import NamedHeads, Seal, has_key, lost_key

log = logging.getLogger(__name__)
# Longest valid list of heads, some 300,000. No writer wrote a longer one.
_MAX_CHARACTERS = 32_000_000
# The openings of chains, unconverted: an edited value must not make a driver fail.
OPENINGS = (
    "SELECT number, opened_ms, release, mac, head_seq, head_mac, "  # noqa: S608
    f"CASE WHEN length(heads) <= {_MAX_CHARACTERS} THEN heads END AS heads FROM chains"
)
_NEWEST = text(f"{OPENINGS} ORDER BY number DESC LIMIT 1")
# If the newest opening does not fit the key, these earlier ones are tried.
_BEFORE = text(f"{OPENINGS} ORDER BY number DESC LIMIT 20 OFFSET 1")
_BEGUN = (text("SELECT 1 FROM chains LIMIT 1"), text("SELECT 1 FROM decisions LIMIT 1"))
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_heads = msgspec.json.Decoder(list[tuple[_Number, _Number, str]])


def ready_seal(folder: Path, database: Database) -> Seal:
    """Open the seal of a ledger; make the key of a new one.

    Raises LostSeal if the ledger has chains and the key is gone or is another one, or LedgerError.
    """
    with database.reading() as connection:
        if not has_key(folder) and any(connection.execute(query).first() for query in _BEGUN):
            raise lost_key(folder, f"{database} has chains already")
        seal = Seal(folder)
        require_own_seal(connection, seal)
    return seal


def require_own_seal(connection: Connection, seal: Seal) -> None:
    """Raise LostSeal if none of the newest chains was opened with this seal's key."""
    newest = connection.execute(_NEWEST).first()
    if newest is None or opening_mac(seal, newest) == newest.mac:
        return
    if not any(opening_mac(seal, row) == row.mac for row in connection.execute(_BEFORE)):
        raise LostSeal(
            f"{seal.folder / 'key'}: this key is not the one that the ledger's chains were opened "
            "with; put that one back from its backup, or name its folder (PEERLOAN_SEAL)"
        )
    log.error(
        "chain %s was opened with another key, or its row was edited; run: peerloan ledger verify",
        newest.number,
    )


def newest_opening(connection: Connection, seal: Seal) -> tuple[int, NamedHeads | None]:
    """Return the newest chain's number (0: none), and the heads in its opening if its MAC fits."""
    row = connection.execute(_NEWEST).first()
    if row is None:
        return 0, None
    return row.number, opening_heads(row) if opening_mac(seal, row) == row.mac else None


def opening_heads(row: Any) -> NamedHeads | None:
    """Parse the heads in a chain's opening; None if no writer can have written them."""
    try:
        return _heads.decode(row.heads)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return None


def opening_mac(seal: Seal, row: Any) -> bytes | None:
    """Compute the MAC of a chain's opening; None if no writer can have written the row."""
    heads = opening_heads(row)
    if heads is None:
        return None
    try:
        return seal.opening(row.number, row.opened_ms, row.release, heads)
    except (OverflowError, TypeError, ValueError):
        return None
