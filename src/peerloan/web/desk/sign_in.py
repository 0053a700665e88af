"""Sign in with a token and sign out: the page and its two forms."""

from __future__ import annotations

import logging
import re

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge

from peerloan.web.auth.authentication import CHALLENGE, TOKEN_COMMAND, Page
from peerloan.web.auth.endpoint_scopes import public
from peerloan.web.auth.sessions import delete_cookie, read_cookie, set_cookie
from peerloan.web.http import problems
from peerloan.web.http.problems import RequestError
from peerloan.web.http.request_body import read_form
from peerloan.web.services import services

log = logging.getLogger(__name__)
blueprint = Blueprint("sign_in", __name__)
# Anybody may send this form.
_MAX_FORM_BYTES = 10_000
# A path below the prefix. It has nothing that a browser takes for another site, before or after it
# drops invalid characters, and no dot segment, which could leave the prefix.
_OWN_PATH = re.compile(r"(?!.*/(\.|%2[eE]){1,2}([/?#]|$))/(?!/)[!-\[\]-~]{0,2000}")
_NOT_ENDED = (
    "This browser is signed out, but that can't be noted on the server now: a copy of its cookie "
    "holds for up to twelve hours. To end that, have the token revoked: peerloan token revoke NAME"
)


@blueprint.post("/sign-in")
@public
def sign_in() -> Response | Page:
    """Begin a session if the token is known, and redirect to the requested page."""
    authenticator = services().authenticator
    request.max_content_length = _MAX_FORM_BYTES
    try:
        form = read_form()
    except RequestEntityTooLarge:
        raise RequestError(413, "Content Too Large", "Expected a token, given more.") from None
    target = form.get("next", "/")
    token = authenticator.by_token(form.get("token", "").strip())
    if token is None:
        return render_sign_in(target, is_wrong=True)
    response: Response = redirect(request.root_path + _own_path(target), 303)  # type: ignore[assignment]
    set_cookie(response, request, authenticator.begin_session(token))
    return response


@blueprint.post("/sign-out")
@public
def sign_out() -> Response:
    """End the session, in this browser and for all copies of its cookie."""
    response: Response = redirect(url_for("pages.empty_form"), 303)  # type: ignore[assignment]
    try:
        services().authenticator.end_session(read_cookie(request))
    except OSError as error:
        log.error("a session can't be ended: %s", error)
        response = problems.answer(RequestError(503, "Not Signed Out Everywhere", _NOT_ENDED))
    delete_cookie(response, request)
    return response


def render_sign_in(target: str, is_wrong: bool = False) -> Page:
    """Render the page that asks for a token, with status 401; `target` is the next page."""
    page = render_template(
        "sign_in.html",
        wrong=is_wrong,
        target=_own_path(target),
        known=services().authenticator.snapshot(),
        command=TOKEN_COMMAND,
    )
    return page, 401, CHALLENGE


def _own_path(target: str) -> str:
    """Return a path if it is a page of this site, otherwise the first page."""
    return target if _OWN_PATH.fullmatch(target) else "/"
