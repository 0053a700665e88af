"""Commits a request's decisions to the ledger. The response is sent only after the commit.

A view makes an `Answer` and calls `DecisionCommitter.respond`, which queues the decisions for the
ledger's writer and prepares the response. The response waits as a `PendingResponse`; the middleware
around the application sends it after the commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flask import Flask, Response, current_app, request

from peerloan.database import Database, KeyInUse, LedgerError, LedgerUnavailable, RecordRefused
from peerloan.formatting import show_value
from peerloan.ledger import Entry, Key, KeyOfOtherRequest, Record, RepeatedRequest, Version
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
from peerloan.web.prediction.loan_parsing import understood_in
from peerloan.web.prediction.predict import Answer, ResponseOptions
from peerloan.web.prediction.serving_models import ServingModels
from peerloan.web.telemetry import metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_Response = TypeVar("_Response", bound=Response | RawResponse)
# Encodes the body of an answer as the response of a route.
Render = Callable[[dict[str, Any]], _Response]
# Called with the decisions' ids after the commit, in the writer's thread.
OnCommitted = Callable[[Sequence[bytes]], None]
# Why decisions were not committed.
_Failure = RepeatedRequest | KeyOfOtherRequest | LedgerError

_KEY_PATTERN = re.compile(r"[!-~]{1,255}")
_BAND_NUMBERS = {band: number for number, band in enumerate(BANDS)}
_RETRY_SOON = {"Retry-After": "2"}
# The label of the metric of requests without a commit, by the class of the failure.
_FAILURE_LABELS = {
    KeyOfOtherRequest: "another",
    KeyInUse: "in use",
    RecordRefused: "refused",
    LedgerUnavailable: "unavailable",
    LedgerError: "unavailable",
}


class Submission(NamedTuple):
    """A request as the ledger stores it.

    `source` is one of `ledger.SOURCES`, and `inputs` has each loan as compact JSON. A repeated
    Idempotency-Key must come with the same `content`, which is the body.
    """

    source: str
    inputs: Sequence[str]
    content: bytes
    options: ResponseOptions


class DecisionCommitter:
    """Commits decisions through the ledger's writer, and responds after the commit. Thread-safe.

    Its members belong to the application's `Services`.
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
        """Queue the decisions for their commit, and return the response to send after it.

        The response of a `what_if`, or of a list without loans, is sent at once. Raises
        RequestError 400 for an invalid Idempotency-Key, 503 while the ledger is unavailable.
        """
        environ = request.environ
        caller = caller_name(environ)
        key = _idempotency_key(environ, caller, submission.content)
        if submission.options.what_if or not answer.decisions:
            return render(answer.body())
        request_id = environ["peerloan.request_id"]
        values = _record_values(answer, submission, caller, request_id, key)
        draft = _Draft(answer.serving.version, values, key, len(submission.content))
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        replace = partial(self._replacement, answer, submission, render)
        pending: PendingResponse[_Failure] = PendingResponse(app, environ, replace)
        on_result = partial(_handle_result, pending, answer, draft, on_committed)
        try:
            self._writer.put(draft.make_entry, on_result)
        except LedgerUnavailable as error:
            raise _refusal(error) from None
        environ[PENDING_KEY] = pending
        for prediction, decision_id in zip(answer.predictions, draft.ids, strict=True):
            prediction["id"] = id_text(decision_id)
        return render(answer.body())

    def _replacement(
        self, answer: Answer, submission: Submission, render: Render[_Response], failure: _Failure
    ) -> WSGIApplication:
        """Make the response for decisions that were not committed.

        A repeated request gets its first answer again, any other request an error. Called in the
        context of the request.
        """
        try:
            if isinstance(failure, RepeatedRequest):
                metrics.LEDGER_REPEATED.inc()
                is_list = answer.list_members is not None
                body = self._first_answer(failure, submission, is_list)
                return _with_replayed_header(render(body))
            raise _refusal(failure)
        except Exception as error:  # answered as if the view had raised it
            return current_app.handle_user_exception(error)  # type: ignore[return-value]

    def _first_answer(
        self, repeated: RepeatedRequest, submission: Submission, is_list: bool
    ) -> dict[str, Any]:
        """Rebuild the first answer of a repeated request from the ledger."""
        by_id = find_decisions(self._database, repeated.ids)
        try:
            decisions = [by_id[decision_id] for decision_id in repeated.ids]
            bundle = self._load_bundle(decisions[0].version.version)
            body = predict.rebuild_answer(bundle, decisions, submission.options, is_list)
        except (LookupError, BundleError, StoreError):
            detail = (
                "this request was answered before, but its decisions can't be read any more; for "
                "new decisions, send it with another Idempotency-Key"
            )
            raise RequestError(409, "Answered Before", detail) from None
        if submission.options.lenient:
            # The version that answered may read a comma in another way than today's champion.
            understood = understood_in(bundle.definition, submission.content)
            predict.add_understood(body["predictions"] if is_list else [body], understood)
        return body

    def _load_bundle(self, version: str) -> Bundle:
        """Return a version; from memory if it is the champion or the challenger."""
        for model in (self._serving_models.current, self._serving_models.challenger):
            if model is not None and model.bundle.version == version:
                return model.bundle
        return self._store.load(version)


class _Draft:
    """The records of a request, still without the ids of its decisions.

    Ids must increase in the order of the writer's queue, so they are made while the writer's lock
    is held. All other values are computed before, so that the lock is held briefly. `ids` is set by
    `make_entry`.
    """

    __slots__ = ("_key", "_size", "_values", "_version", "ids")

    def __init__(
        self, version: Version, values: list[tuple[Any, ...]], key: Key | None, size: int
    ) -> None:
        self._version, self._values, self._key, self._size = version, values, key, size
        self.ids: Sequence[bytes] = ()

    def make_entry(self, ids: IdGenerator) -> Entry:
        """Make the ids and return the complete entry; the writer calls this with its lock held."""
        self.ids = ids.many(len(self._values))
        records = [
            Record(decision_id, self._version, *values)
            for decision_id, values in zip(self.ids, self._values, strict=True)
        ]
        return Entry(records, self._key, self._size)


def _record_values(
    answer: Answer, submission: Submission, caller: str, request_id: str, key: Key | None
) -> list[tuple[Any, ...]]:
    """Return the values of each decision's `Record`, in the order of `Record` after its version."""
    source, key_text = submission.source, None if key is None else key.key
    columns = zip(
        answer.loan_ids, submission.inputs, answer.decisions, answer.warning_texts, strict=True
    )
    return [
        (
            *(source, caller, request_id, key_text, loan_id, loan),
            *(decision.margin, decision.probability, decision.late, _BAND_NUMBERS[decision.band]),
            *(encode_or_null(decision.reasons), encode_or_null(warnings) if warnings else None),
        )
        for loan_id, loan, decision, warnings in columns
    ]


def _handle_result(
    pending: PendingResponse[_Failure],
    answer: Answer,
    draft: _Draft,
    on_committed: OnCommitted | None,
    failure: CommitResult,
) -> None:
    """Count committed decisions, and resolve the pending response.

    The writer calls this in its thread, once for each entry; `failure` is None after a commit.
    """
    try:
        if failure is None:
            predict.count_committed(answer)
    finally:
        pending.resolve(failure)
    if failure is None and on_committed is not None:
        on_committed(draft.ids)


def _with_replayed_header(response: WSGIApplication) -> WSGIApplication:
    """Add the header that marks a response as the repeated first answer."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(line: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(line, [*headers, (REPLAYED_HEADER, "true")], *error)

        return response(environ, start)

    return application


def _idempotency_key(environ: Mapping[str, Any], caller: str, content: bytes) -> Key | None:
    """Return the request's Idempotency-Key, if it has one. Raises RequestError 400."""
    header = environ.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    if not _KEY_PATTERN.fullmatch(header):
        detail = "Idempotency-Key: expected 1 to 255 ASCII characters without spaces, given "
        raise RequestError(400, "Wrong Header", detail + show_value(header))
    address = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
    return Key.of(caller, header, address.encode("utf-8", "replace"), content)


def _refusal(failure: KeyOfOtherRequest | LedgerError) -> RequestError:
    """Return the error of decisions that were not committed, and count it."""
    kinds = type(failure).__mro__
    label = next(_FAILURE_LABELS[kind] for kind in kinds if kind in _FAILURE_LABELS)
    metrics.LEDGER_REFUSED.labels(label).inc()
    if isinstance(failure, KeyOfOtherRequest):
        return RequestError(
            422,
            "Key Used Before",
            "Idempotency-Key: expected a new key for each request, given the key of another "
            "request of the last 24 hours",
        )
    if isinstance(failure, KeyInUse):
        detail = "another request with this Idempotency-Key is still running; try again in a moment"
        return RequestError(409, "Key In Use", detail, headers=_RETRY_SOON)
    if isinstance(failure, RecordRefused):
        detail = "The decision can't be stored, so it is not sent; the log has the reason."
        return RequestError(500, "Not Kept", detail)
    return ledger_unavailable(
        "The decision can't be stored now, so it is not sent; try again in a moment."
    )
