"""Model versions over HTTP: list the store's versions, describe one, promote one."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from peerloan.formatting import has_control, show_value
from peerloan.loan import Problem
from peerloan.loan.validation import show_name
from peerloan.registry import (
    AliasState,
    BreakingChange,
    BundleError,
    ChangeReason,
    Manifest,
    Store,
    StoreError,
    StoreFault,
)
from peerloan.web.auth.authentication import require_operator
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.auth.tokens import PROMOTE
from peerloan.web.http import problems
from peerloan.web.http.limits import MAX_BODY_BYTES, MAX_NAMES, MAX_WHY
from peerloan.web.http.problems import RequestError
from peerloan.web.http.query_parameters import refuse_parameters
from peerloan.web.http.request_body import decode, read_body
from peerloan.web.http.responses import as_json, require_json
from peerloan.web.services import reading_version, services

blueprint = Blueprint("models", __name__)
log = logging.getLogger(__name__)


@blueprint.app_errorhandler(StoreFault)
def unavailable(error: StoreFault) -> Response:
    """Answer 503 if the store can't be read or written. Paths go to the log only."""
    log.error("the store can't be used: %s", error)
    detail = "The store can't be read or written now; the log has the reason."
    return problems.answer(RequestError(503, "Store Fault", detail, headers={"Retry-After": "5"}))


@blueprint.get("/v1/models")
@require_scopes("read")
def models() -> Response:
    """List every version, oldest first, with the aliases and their history."""
    refuse_parameters()
    store = services().store
    state = store.state()
    explanations, faults = store.explanations()
    for fault in faults:  # explanations that can't be read
        log.warning("an explanation can't be read: %s", fault)
    return as_json(
        {
            "champion": state.champion,
            "challenger": state.challenger,
            "versions": [_list_entry(store, state, version) for version in store.versions()],
            "history": [_change(past, explanations.get(past.number)) for past in store.history()],
        }
    )


@blueprint.get("/v1/models/<version>")
@require_scopes("read")
def model(version: str) -> Response:
    """Return one version: the members of its list entry, and its complete manifest."""
    refuse_parameters()
    store = services().store
    with reading_version(version):
        manifest, digest = store.read(version)
    aliases = _aliases(store.state(), version)
    described = {"version": version, "aliases": aliases} | _summary(manifest, digest)
    return as_json(described | {"manifest": msgspec.to_builtins(manifest)})


@blueprint.post("/v1/models/<version>/promote")
@require_scopes(PROMOTE)
def promote(version: str) -> Response:
    """Make a version the champion. The history records the operator and the reason."""
    who = require_operator()
    refuse_parameters()
    options = _parse_promotion()
    store = services().store
    with reading_version(version):
        store.read(version)
    try:
        state = store.promote(version, **options, who=who)
    except BreakingChange as error:
        raise RequestError(
            409,
            "Breaking Change",
            f"{version} would refuse loans that the champion accepts (see `reasons`); if callers "
            'are ready for it, promote with "breaking": true',
            reasons=error.reasons,
        ) from None
    except (BundleError, StoreError) as error:
        raise RequestError(409, "Not Promoted", str(error)) from None
    return as_json(_change(state))


def _parse_promotion() -> dict[str, Any]:
    """Parse the optional body of a promotion: `why` and `breaking`. Raises RequestError."""
    content = read_body(request.environ, MAX_BODY_BYTES)
    if not content:
        return {}
    require_json()
    body = decode(content)
    if not isinstance(body, dict):
        wrong = [
            Problem(None, "(body)", 'an object: {"why": "…", "breaking": false}', show_value(body))
        ]
    else:
        wrong = [
            Problem(None, show_name(name), expected, show_value(value))
            for name, value in islice(body.items(), MAX_NAMES)
            if (expected := _expected(name, value))
        ]
    if wrong:
        raise RequestError(422, "Wrong Values", problems.sentence(wrong), wrong)
    return dict(body)


def _expected(name: str, value: Any) -> str | None:
    """Return what was expected of a member of a promotion; None if it is valid."""
    if name == "breaking":
        return None if isinstance(value, bool) else "true or false"
    if name == "why":
        is_valid = isinstance(value, str) and len(value) <= MAX_WHY and not has_control(value)
        return None if is_valid else f"at most {MAX_WHY:,} characters, without control characters"
    return "only why and breaking"


def _list_entry(store: Store, state: AliasState, version: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"version": version, "aliases": _aliases(state, version)}
    try:
        manifest, digest = store.read(version)
    except BundleError as error:  # list it nevertheless, with the reason
        return entry | {"refused": str(error)}
    return entry | _summary(manifest, digest)


def _summary(manifest: Manifest, digest: str) -> dict[str, Any]:
    """Return the part of a manifest that the list of versions has."""
    return {
        "digest": digest,
        "candidate": manifest.candidate,
        "kind": manifest.kind,
        "created": manifest.created,
        "sample": manifest.sample,
        "metrics": manifest.metrics,
    }


def _aliases(state: AliasState, version: str) -> list[str]:
    by_alias = {"champion": state.champion, "challenger": state.challenger}
    return [alias for alias, named in by_alias.items() if named == version]


def _change(state: AliasState, explanation: ChangeReason | None = None) -> dict[str, Any]:
    """Describe a change of aliases; `explanation` is a reason that was added later."""
    names = ("number", "champion", "challenger", "who", "when", "why")
    change: dict[str, Any] = {name: getattr(state, name) for name in names} | {"action": state.what}
    if state.deleted is not None:
        change["deleted"] = state.deleted
    if explanation is not None:
        members = ("why", "who", "when")
        change["explanation"] = {name: getattr(explanation, name) for name in members}
    return change
