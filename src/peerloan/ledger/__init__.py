"""The ledger stores every decision and its outcomes, sealed, so that it can be replayed."""

from peerloan.ledger.records import SOURCES, Record, StoredDecision, Version
from peerloan.ledger.seal import Seal
from peerloan.ledger.write.batch_writer import BatchWriter
from peerloan.ledger.write.chain import Chain
from peerloan.ledger.write.entries import Entry, KeyOfOtherRequest, RepeatedRequest
from peerloan.ledger.write.idempotency import Key

__all__ = [
    "SOURCES",
    "BatchWriter",
    "Chain",
    "Entry",
    "Key",
    "KeyOfOtherRequest",
    "Record",
    "RepeatedRequest",
    "Seal",
    "StoredDecision",
    "Version",
]
