"""Sign-in with a token, and sign-out."""

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
# The sign-in form needs no token, so its size is limited.
_MAX_FORM_BYTES = 10_000
# A path of this site below the prefix. It excludes everything that a browser could take for another
# site, also after removing invalid characters, and dot segments, which could leave the prefix.
_LOCAL_PATH = re.compile(r"(?!.*/(\.|%2[eE]){1,2}([/?#]|$))/(?!/)[!-\[\]-~]{0,2000}")
_NOT_ENDED = (
    "This browser is signed out, but the server can't store that now: a copy of its cookie stays "
    "valid for up to twelve hours. To end it earlier, revoke the token: peerloan token revoke NAME"
)


@blueprint.post("/sign-in")
@public
def sign_in() -> Response | Page:
    """Begin a session if the token is valid, and redirect to the requested page."""
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
    response: Response = redirect(request.root_path + _local_path(target), 303)  # type: ignore[assignment]
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
    """Render the sign-in page with status 401; `target` is the path of the page to go to then."""
    page = render_template(
        "sign_in.html",
        is_wrong=is_wrong,
        target=_local_path(target),
        snapshot=services().authenticator.snapshot(),
        command=TOKEN_COMMAND,
    )
    return page, 401, CHALLENGE


def _local_path(target: str) -> str:
    """Return a path if it is one of this site, otherwise that of the first page."""
    return target if _LOCAL_PATH.fullmatch(target) else "/"
