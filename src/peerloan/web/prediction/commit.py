"""No answer leaves before its decisions last: from an answer to the ledger, and back.

A view makes its answer and hands the decisions over by `keep`; the answer waits in a Ticket, which
`Observed`, around the whole application, sends when the commit is done.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask, Response, current_app, request

from peerloan.database import Database, KeyInUse, LedgerError, LedgerUnavailable, RecordRefused
from peerloan.ledger import Entry, First, Key, OtherRequest, Record
from peerloan.ledger.queries import find
from peerloan.ledger.records import as_json, warnings_json
from peerloan.ledger.write.group_commit import Outcome, Writer
from peerloan.loan.text import show_given
from peerloan.model import BANDS
from peerloan.registry import BundleError, StoreError
from peerloan.uuid7 import Ids
from peerloan.uuid7 import text as id_text
from peerloan.web.api.openapi.decisions import REPLAYED_HEADER
from peerloan.web.auth.authentication import caller_name
from peerloan.web.http.problems import RequestError
from peerloan.web.http.responses import Whole
from peerloan.web.prediction import predict
from peerloan.web.prediction.predict import Answer, Wanted
from peerloan.web.prediction.serving_models import Champion
from peerloan.web.telemetry import metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_Shaped = TypeVar("_Shaped", bound=Response | Whole)
TICKET = "peerloan.ticket"
_KEY = re.compile(r"[!-~]{1,255}")
_BAND = {band: position for position, band in enumerate(BANDS)}
_RETRY = {"Retry-After": "2"}
_WHY = {
    OtherRequest: "another",
    KeyInUse: "in use",
    RecordRefused: "refused",
    LedgerUnavailable: "unavailable",
    LedgerError: "unavailable",
}


class Ticket:
    """An answer that waits for its decisions' commit. `again` makes it anew where the ledger has
    another word: the first answer of a repeated request, or a problem.
    """

    __slots__ = ("_again", "_app", "_callback", "_environ", "_turns", "outcome")

    def __init__(
        self,
        app: Flask,
        environ: dict[str, Any],
        again: Callable[[First | OtherRequest | LedgerError], WSGIApplication],
    ) -> None:
        self._app, self._environ, self._again = app, environ, again
        self._turns = [None]
        self._callback: Callable[[], object] | None = None
        self.outcome: Outcome = None

    def tell(self, outcome: Outcome) -> None:
        """Called when it is known what became of the decisions."""
        self.outcome = outcome
        self._meet()

    def then(self, callback: Callable[[], object]) -> None:
        """Have something called once that is known, by whoever learns it; at once if it is."""
        self._callback = callback
        self._meet()

    def wait(self) -> None:
        """Wait until it is known, which the writer's time limit bounds."""
        known = threading.Lock()
        known.acquire()
        self.then(known.release)
        known.acquire()

    def another(self) -> WSGIApplication | None:
        """What is answered instead of what was prepared, if anything."""
        if self.outcome is None:
            return None
        with self._app.request_context(self._environ):
            return self._again(self.outcome)

    def _meet(self) -> None:
        # Two come, in any order and perhaps at once: the second goes on. Taking is one step.
        try:
            self._turns.pop()
        except IndexError:
            # Forgotten as it is called: it holds this ticket, and a circle would stay in memory
            # until the collector's next turn.
            callback, self._callback = self._callback, None
            cast("Callable[[], object]", callback)()


def writer() -> Writer:
    """What keeps this application's decisions."""
    return current_app.extensions["ledger"]  # type: ignore[no-any-return]


def database() -> Database:
    """The ledger's database."""
    return current_app.extensions["database"]  # type: ignore[no-any-return]


def keep(
    answer: Answer,
    inputs: Sequence[str],
    source: str,
    wanted: Wanted,
    shape: Callable[[dict[str, Any]], _Shaped],
    content: bytes,
    follow: Callable[[Sequence[bytes]], None] | None = None,
) -> _Shaped:
    """The response, in the `shape` of its route, that leaves once the decisions are kept.

    `inputs` are the loans, in compact JSON, and `content` what makes this request the same as
    another. `follow` gets the decisions' ids once they last. A `what_if`, and an answer
    without decisions, has nothing to wait for. Raises RequestError if nothing can be kept now.
    """
    environ = request.environ
    name = caller_name(environ)
    key = _key(environ, name, content)
    if wanted.what_if or not answer.decisions:
        return shape(answer.body())
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    made: list[bytes] = []

    def entry(ids: Ids) -> Entry:
        version, request_id = answer.serving.version, environ["peerloan.request_id"]
        key_text = key and key.key
        records = []
        for loan_id, given, warnings, decision, prediction in zip(
            answer.loan_ids,
            inputs,
            answer.warnings,
            answer.decisions,
            answer.predictions,
            strict=True,
        ):
            made_id = ids.new()
            made.append(made_id)
            prediction["id"] = id_text(made_id)
            numbers = decision.margin, decision.probability, decision.late, _BAND[decision.band]
            texts = as_json(decision.reasons), warnings_json(warnings)
            who = source, name, request_id, key_text
            records.append(Record(made_id, version, *who, loan_id, given, *numbers, *texts))
        return Entry(records, key, len(content))

    def again(outcome: First | OtherRequest | LedgerError) -> WSGIApplication:
        try:
            if isinstance(outcome, First):
                metrics.LEDGER_REPEATED.inc()
                return _replayed(shape(_first(outcome, wanted, answer.beside is not None)))
            raise _refusal(outcome)
        except Exception as error:  # as if a view had raised it
            return app.handle_user_exception(error)  # type: ignore[return-value]

    ticket = Ticket(app, environ, again)

    def told(outcome: Outcome) -> None:
        try:
            if outcome is None:
                predict.count(answer)
        finally:
            ticket.tell(outcome)
        if outcome is None and follow is not None:
            follow(made)

    try:
        app.extensions["ledger"].put(entry, told)
    except LedgerUnavailable as error:
        raise _refusal(error) from None
    environ[TICKET] = ticket
    return shape(answer.body())


def _replayed(first: WSGIApplication) -> WSGIApplication:
    """The first answer, whose head says that it is given again."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(line: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(line, [*headers, (REPLAYED_HEADER, "true")], *error)

        return first(environ, start)

    return application


def _key(environ: Mapping[str, Any], caller: str, content: bytes) -> Key | None:
    """The request's Idempotency-Key, if it has one."""
    given = environ.get("HTTP_IDEMPOTENCY_KEY")
    if given is None:
        return None
    if not _KEY.fullmatch(given):
        detail = "Idempotency-Key: expected 1 to 255 letters of ASCII without spaces, given "
        raise RequestError(400, "Wrong Header", detail + show_given(given))
    address = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
    return Key.of(caller, given, address.encode("utf-8", "replace"), content)


def _first(outcome: First, wanted: Wanted, many: bool) -> dict[str, Any]:
    """The first answer to a repeated request, from the ledger."""
    found = find(database(), outcome.ids)
    try:
        kept = [found[each] for each in outcome.ids]
        bundle = _bundle(kept[0].version.version)
        return predict.answered_before(bundle, kept, wanted, many)
    except (LookupError, BundleError, StoreError):
        detail = "the request was answered before, and its decisions can't be read any more"
        raise RequestError(409, "Answered Before", detail) from None


def _bundle(version: str) -> Any:
    champion: Champion = current_app.extensions["champion"]
    for serving in (champion.current, champion.challenger):
        if serving is not None and serving.bundle.version == version:
            return serving.bundle
    return current_app.extensions["store"].load(version)


def _refusal(outcome: OtherRequest | LedgerError) -> RequestError:
    why = next(_WHY[kind] for kind in type(outcome).__mro__ if kind in _WHY)
    metrics.LEDGER_REFUSED.labels(why).inc()
    if isinstance(outcome, OtherRequest):
        return RequestError(
            422,
            "Key Used Before",
            "Idempotency-Key: expected a key of its own for each request, given the key of another "
            "request within 24 hours",
        )
    if isinstance(outcome, KeyInUse):
        detail = "another request with this Idempotency-Key is not answered yet"
        return RequestError(409, "Key In Use", detail, headers=_RETRY)
    if isinstance(outcome, RecordRefused):
        detail = "The decision can't be kept, and so is not answered; the log says why."
        return RequestError(500, "Not Kept", detail)
    return unavailable(
        "The decision can't be kept now, and so is not answered; try again in a moment."
    )


def unavailable(detail: str) -> RequestError:
    """The problem of a ledger that can't be asked or written to now."""
    return RequestError(503, "Ledger Unavailable", detail, headers=_RETRY)
