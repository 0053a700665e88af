"""Commits a request's decisions to the ledger. A response is sent only after their commit.

A view makes its answer and hands the decisions to `DecisionCommitter.respond`. The response waits
as a `PendingResponse`, which the middleware around the application sends after the commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flask import Flask, Response, current_app, request

from peerloan.database import Database, KeyInUse, LedgerError, LedgerUnavailable, RecordRefused
from peerloan.formatting import show_value
from peerloan.ledger import Entry, Key, OtherRequest, Record, RepeatedRequest, Version
from peerloan.ledger.queries import find_decisions
from peerloan.ledger.records import encode_or_null
from peerloan.ledger.write.group_commit import CommitResult, LedgerWriter
from peerloan.model import BANDS
from peerloan.registry import Bundle, BundleError, Store, StoreError
from peerloan.uuid7 import IdGenerator
from peerloan.uuid7 import text as id_text
from peerloan.web.auth.authentication import caller_name
from peerloan.web.http.deferred_response import PENDING_KEY, PendingResponse
from peerloan.web.http.problems import RequestError, ledger_unavailable
from peerloan.web.http.responses import REPLAYED_HEADER, RawResponse
from peerloan.web.prediction import predict
from peerloan.web.prediction.predict import Answer, ResponseOptions
from peerloan.web.prediction.serving_models import ServingModels
from peerloan.web.telemetry import metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_Response = TypeVar("_Response", bound=Response | RawResponse)
# Makes the response of a route from the body of its answer.
Render = Callable[[dict[str, Any]], _Response]
# Called with the decisions' ids after the commit, in the writer's thread.
OnCommitted = Callable[[Sequence[bytes]], None]
# Reasons why decisions are not committed.
_Failure = RepeatedRequest | OtherRequest | LedgerError

_KEY = re.compile(r"[!-~]{1,255}")
_BAND_NUMBERS = {band: number for number, band in enumerate(BANDS)}
_RETRY_SOON = {"Retry-After": "2"}
# The metric's label by error class.
_REFUSALS = {
    OtherRequest: "another",
    KeyInUse: "in use",
    RecordRefused: "refused",
    LedgerUnavailable: "unavailable",
    LedgerError: "unavailable",
}


class Submission(NamedTuple):
    """A request's source, its loans as compact JSON, and its response options.

    `content` identifies the request among those with the same Idempotency-Key.
    """

    source: str
    inputs: Sequence[str]
    content: bytes
    options: ResponseOptions


class DecisionCommitter:
    """Commits decisions through the ledger's writer, and responds after the commit. Thread-safe.

    It borrows its parts from the application's `Services`, and owns none.
    """

    def __init__(
        self, writer: LedgerWriter, database: Database, store: Store, serving_models: ServingModels
    ) -> None:
        self._writer, self._database = writer, database
        self._store, self._serving_models = store, serving_models

    def respond(
        self,
        answer: Answer,
        submission: Submission,
        render: Render[_Response],
        on_committed: OnCommitted | None = None,
    ) -> _Response:
        """Return the response of this request, which is sent once its decisions are committed.

        A `what_if`, or an answer without decisions, is sent at once. Raises RequestError 400 for an
        invalid Idempotency-Key, 503 while the ledger is unavailable.
        """
        environ = request.environ
        caller = caller_name(environ)
        key = _idempotency_key(environ, caller, submission.content)
        if submission.options.what_if or not answer.decisions:
            return render(answer.body())
        request_id = environ["peerloan.request_id"]
        rows = _rows(answer, submission, caller, request_id, key)
        draft = _Draft(answer.serving.version, rows, key, len(submission.content))
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        replace = partial(self._replacement, answer, submission.options, render)
        pending: PendingResponse[_Failure] = PendingResponse(app, environ, replace)
        try:
            self._writer.put(draft.number, partial(_resolve, pending, answer, draft, on_committed))
        except LedgerUnavailable as error:
            raise _refusal(error) from None
        environ[PENDING_KEY] = pending
        for prediction, decision_id in zip(answer.predictions, draft.ids, strict=True):
            prediction["id"] = id_text(decision_id)
        return render(answer.body())

    def _replacement(
        self, answer: Answer, options: ResponseOptions, render: Render[_Response], failure: _Failure
    ) -> WSGIApplication:
        """Make the response if the decisions were not committed.

        It is the first answer of a repeated request, or a problem. Called in the context of the
        request.
        """
        try:
            if isinstance(failure, RepeatedRequest):
                metrics.LEDGER_REPEATED.inc()
                is_list = answer.beside is not None
                return _with_replayed_header(render(self._first_answer(failure, options, is_list)))
            raise _refusal(failure)
        except Exception as error:  # handled as if the view had raised it
            return current_app.handle_user_exception(error)  # type: ignore[return-value]

    def _first_answer(
        self, first: RepeatedRequest, options: ResponseOptions, is_list: bool
    ) -> dict[str, Any]:
        """Rebuild the first answer of a repeated request from the ledger."""
        found = find_decisions(self._database, first.ids)
        try:
            kept = [found[each] for each in first.ids]
            bundle = self._bundle(kept[0].version.version)
            return predict.rebuild_answer(bundle, kept, options, is_list)
        except (LookupError, BundleError, StoreError):
            detail = "the request was answered before, and its decisions can't be read any more"
            raise RequestError(409, "Answered Before", detail) from None

    def _bundle(self, version: str) -> Bundle:
        """Return a version, from memory if it is being served."""
        for model in (self._serving_models.current, self._serving_models.challenger):
            if model is not None and model.bundle.version == version:
                return model.bundle
        return self._store.load(version)


class _Draft:
    """A request's records without ids.

    Ids must rise in the order of the writer's queue, so they are made while the writer's lock is
    held; everything else is built before. `ids` are set once the writer has taken the entry.
    """

    __slots__ = ("_key", "_rows", "_size", "_version", "ids")

    def __init__(
        self, version: Version, rows: list[tuple[Any, ...]], key: Key | None, size: int
    ) -> None:
        self._version, self._rows, self._key, self._size = version, rows, key, size
        self.ids: Sequence[bytes] = ()

    def number(self, ids: IdGenerator) -> Entry:
        """Return the entry with ids; the writer calls this with its lock held."""
        self.ids = ids.many(len(self._rows))
        records = [
            Record(decision_id, self._version, *row)
            for decision_id, row in zip(self.ids, self._rows, strict=True)
        ]
        return Entry(records, self._key, self._size)


def _rows(
    answer: Answer, submission: Submission, caller: str, request_id: str, key: Key | None
) -> list[tuple[Any, ...]]:
    """Return the values of the records of a request's decisions, in the order of `VALUES`."""
    source, key_text = submission.source, None if key is None else key.key
    columns = zip(
        answer.loan_ids, submission.inputs, answer.decisions, answer.sentences, strict=True
    )
    return [
        (
            *(source, caller, request_id, key_text, loan_id, loan),
            *(decision.margin, decision.probability, decision.late, _BAND_NUMBERS[decision.band]),
            *(encode_or_null(decision.reasons), encode_or_null(warnings) if warnings else None),
        )
        for loan_id, loan, decision, warnings in columns
    ]


def _resolve(
    pending: PendingResponse[_Failure],
    answer: Answer,
    draft: _Draft,
    on_committed: OnCommitted | None,
    outcome: CommitResult,
) -> None:
    """Resolve the pending response.

    The writer calls this in its own thread, once for each entry.
    """
    try:
        if outcome is None:
            predict.count(answer)
    finally:
        pending.resolve(outcome)
    if outcome is None and on_committed is not None:
        on_committed(draft.ids)


def _with_replayed_header(first: WSGIApplication) -> WSGIApplication:
    """Add the header that marks a response as a repetition of the first one."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(line: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(line, [*headers, (REPLAYED_HEADER, "true")], *error)

        return first(environ, start)

    return application


def _idempotency_key(environ: Mapping[str, Any], caller: str, content: bytes) -> Key | None:
    """Return the request's Idempotency-Key, if it has one; raises RequestError 400."""
    given = environ.get("HTTP_IDEMPOTENCY_KEY")
    if given is None:
        return None
    if not _KEY.fullmatch(given):
        detail = "Idempotency-Key: expected 1 to 255 letters of ASCII without spaces, given "
        raise RequestError(400, "Wrong Header", detail + show_value(given))
    address = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
    return Key.of(caller, given, address.encode("utf-8", "replace"), content)


def _refusal(failure: OtherRequest | LedgerError) -> RequestError:
    """Return the problem of decisions that were not committed, and count it."""
    label = next(_REFUSALS[kind] for kind in type(failure).__mro__ if kind in _REFUSALS)
    metrics.LEDGER_REFUSED.labels(label).inc()
    if isinstance(failure, OtherRequest):
        return RequestError(
            422,
            "Key Used Before",
            "Idempotency-Key: expected a key of its own for each request, given the key of another "
            "request within 24 hours",
        )
    if isinstance(failure, KeyInUse):
        detail = "another request with this Idempotency-Key is not answered yet"
        return RequestError(409, "Key In Use", detail, headers=_RETRY_SOON)
    if isinstance(failure, RecordRefused):
        detail = "The decision can't be kept, and so is not answered; the log says why."
        return RequestError(500, "Not Kept", detail)
    return ledger_unavailable(
        "The decision can't be kept now, and so is not answered; try again in a moment."
    )
