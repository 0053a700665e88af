"""What can go wrong with the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from peerloan.errors import PeerLoanError


class LedgerError(PeerLoanError, ValueError):
    """Something that can't be done with the ledger, and why."""


class LedgerUnavailable(LedgerError):
    """The database does not answer, or can't write now; it may later."""


class LedgerReadOnly(LedgerUnavailable):
    """The database answers, and can't be written to now."""


class LostSeal(LedgerError):
    """The seal's key is gone, or is not the one that the ledger's chains were opened with."""


class RecordRefused(LedgerError):
    """The database refuses this record, and would refuse it again."""


class KeyInUse(LedgerError):
    """Another request with the same key is still on its way into the ledger."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise SQLAlchemy's errors as LedgerUnavailable, with their first line."""
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerUnavailable(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """An error's first line. The lines after it may hold a statement, and so a loan's values."""
    message = str(getattr(error, "orig", None) or error)
    return message.split("\n", 1)[0].strip() or type(error).__name__
