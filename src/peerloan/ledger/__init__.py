"""The ledger: every decision kept, with what became of it, so that each can be shown again."""

from peerloan.ledger.chain import Chain
from peerloan.ledger.database import Database
from peerloan.ledger.entries import Entry, First, Key, OtherRequest
from peerloan.ledger.errors import KeyInUse, LedgerError, LedgerUnavailable, RecordRefused
from peerloan.ledger.ids import Ids
from peerloan.ledger.recorder import Recorder
from peerloan.ledger.records import SOURCES, Kept, Record, Version
from peerloan.ledger.seal import Seal

__all__ = [
    "SOURCES",
    "Chain",
    "Database",
    "Entry",
    "First",
    "Ids",
    "Kept",
    "Key",
    "KeyInUse",
    "LedgerError",
    "LedgerUnavailable",
    "OtherRequest",
    "Record",
    "RecordRefused",
    "Recorder",
    "Seal",
    "Version",
]
