"""What the API asks and a schema can't state: the tester does not try it, for the reason given."""

from __future__ import annotations

import uuid
from datetime import date
from typing import Any

import schemathesis


def of_columns_of_other_lengths(body: Any) -> bool:
    """Columns are of one length: no schema relates the lengths of two lists."""
    if not isinstance(body, dict):
        return False
    return len({len(values) for values in body.values() if isinstance(values, list)}) > 1


def of_two_ids(body: Any) -> bool:
    """A loan has one id, which may stand under two names: no schema says that two values agree."""
    return any(
        isinstance(loan, dict) and set(loan) >= {"loan_id", "Konto-Nr."}
        for loan in (body if isinstance(body, list) else [body])
    )


def of_too_many_days(query: Any) -> bool:
    """Figures are of at most 366 days: no schema relates two days."""
    try:
        since, until = (date.fromisoformat(query[name]) for name in ("since", "until"))
    except (KeyError, TypeError, ValueError):
        return False
    return (until - since).days > 366


def of_flips_of_no_what_if(query: Any, body: Any) -> bool:
    """Flips are of a `what_if` of one loan: no schema relates two parameters, or one and a body."""
    if not isinstance(query, dict) or query.get("flips") != "true":
        return False
    is_list = isinstance(body, list) or (
        isinstance(body, dict) and any(isinstance(values, list) for values in body.values())
    )
    return query.get("what_if") != "true" or is_list


EXCEPTIONS = (of_columns_of_other_lengths, of_two_ids)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Whether a case is tried."""
    if of_too_many_days(case.query or {}):
        return False
    if of_flips_of_no_what_if(case.query, case.body):
        return False
    return not any(excepted(case.body) for excepted in EXCEPTIONS)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A key belongs to one request, and no schema relates two. What is to be refused stays so."""
    key = (case.headers or {}).get("Idempotency-Key")
    right = case.meta is None or case.meta.generation.mode.is_positive
    if right and isinstance(key, str):
        case.headers["Idempotency-Key"] = key[:200] + uuid.uuid4().hex
