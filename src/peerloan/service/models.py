"""The store's versions over HTTP: which there are, which one serves, and what each is."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, current_app

from peerloan.model import BundleError, State, Store, StoreError
from peerloan.service.api import as_json
from peerloan.service.problems import RequestError

blueprint = Blueprint("models", __name__)


def _store() -> Store:
    return current_app.extensions["store"]  # type: ignore[no-any-return]


@blueprint.get("/v1/models")
def models() -> Response:
    """Every version, oldest first, the champion, the challenger, and how they came to be so."""
    store = _store()
    try:
        state = store.state()
        versions = [_brief(store, state, version) for version in store.versions()]
        history = [_change(past) for past in store.history()]
    except StoreError as error:
        raise RequestError(
            503, "Store Unreadable", str(error), headers={"Retry-After": "5"}
        ) from None
    return as_json(
        {
            "champion": state.champion,
            "challenger": state.challenger,
            "versions": versions,
            "history": history,
        }
    )


@blueprint.get("/v1/models/<version>")
def model(version: str) -> Response:
    """One version: its manifest, with the figures that it was judged by, and its aliases."""
    store = _store()
    try:
        manifest, digest = store.read(version)
    except StoreError as error:
        raise RequestError(404, "No Such Version", str(error)) from None
    except BundleError as error:
        raise RequestError(409, "Version Refused", str(error)) from None
    aliases = _aliases(store.state(), version)
    described = {"version": version, "digest": digest, "aliases": aliases}
    return as_json(described | {"manifest": msgspec.to_builtins(manifest)})


def _brief(store: Store, state: State, version: str) -> dict[str, Any]:
    brief: dict[str, Any] = {"version": version, "aliases": _aliases(state, version)}
    try:
        manifest, digest = store.read(version)
    except BundleError as error:  # listed all the same, so that somebody sees it
        return brief | {"refused": str(error)}
    return brief | {
        "digest": digest,
        "candidate": manifest.candidate,
        "kind": manifest.kind,
        "created": manifest.created,
        "sample": manifest.sample,
        "metrics": manifest.metrics,
    }


def _aliases(state: State, version: str) -> list[str]:
    named = {"champion": state.champion, "challenger": state.challenger}
    return [alias for alias, holder in named.items() if holder == version]


def _change(state: State) -> dict[str, Any]:
    shown = ("number", "action", "champion", "challenger", "who", "when", "why")
    return {name: getattr(state, name) for name in shown}
