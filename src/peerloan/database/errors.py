"""Errors of the ledger and its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from peerloan.errors import PeerLoanError


class LedgerError(PeerLoanError, ValueError):
    """An operation on the ledger failed. The message has the reason."""


class LedgerUnavailable(LedgerError):
    """The database does not respond, or can't write at present. A retry may succeed."""


class LedgerReadOnly(LedgerUnavailable):
    """The database responds, but can't be written to at present."""


class LostSeal(LedgerError):
    """The seal's key is missing, or is not the key that opened the ledger's chains."""


class RecordRefused(LedgerError):
    """The database refuses a record. A retry would fail too."""


class KeyInUse(LedgerError):
    """Another request with the same idempotency key is still being committed."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise SQLAlchemy's errors as LedgerUnavailable with their first line."""
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerUnavailable(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message.

    Later lines may contain a statement with a loan's values, which must not be logged.
    """
    message = str(getattr(error, "orig", None) or error)
    return message.split("\n", 1)[0].strip() or type(error).__name__
