"""Log in and out."""

import logging
import math
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from node.log import event
from node.web.guard import address, keep_login_secret, login_secret, session_cookie
from node.web.site import Site
from node.web.trail import tell

_LONGEST_PATH: Final = 500
_log = logging.getLogger(__name__)


def form(site: Site, request: Request) -> Response:
    """Show the form; who is logged in goes on."""
    if request.state.session is not None:
        return RedirectResponse(_target(request.query_params.get("next", "")), status_code=303)
    return _form(site, request)


def log_in(site: Site, request: Request) -> Response:
    """Check name and password; a few wrong ones, and address and name have to wait."""
    given = request.state.form
    name, password = given.get("name", "").strip().lower()[:64], given.get("password", "")
    known = site.users.get(name) is not None
    place = address(request)
    wait = site.brake.wait_s(name, place)
    if wait > 0:
        event(_log, "web_login_braked", level=logging.WARNING, address=place)
        return _form(site, request, 429, wait_minutes=math.ceil(wait / 60))
    user = site.users.check(name, password)
    if user is None:
        site.brake.failed(name, place)
        # A name that is none may be a password that was typed into the wrong field.
        _tell(site, request, "login_refused", name if known else "(unknown)")
        return _form(site, request, 401, wrong=True)
    site.brake.succeeded(name, place)
    token = site.sessions.begin(user)
    _tell(site, request, "login", user.name)
    response = RedirectResponse(_target(given.get("next", "")), status_code=303)
    response.set_cookie(
        session_cookie(secure=site.secure), token, httponly=True, samesite="lax",
        secure=site.secure, path="/",
    )  # fmt: skip
    return response


def log_out(site: Site, request: Request) -> Response:
    """End the session."""
    name = session_cookie(secure=site.secure)
    session = request.state.session
    site.sessions.end(request.cookies.get(name, ""))
    if session is not None:
        _tell(site, request, "logout", session.user.name)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(name, path="/", secure=site.secure, httponly=True, samesite="lax")
    return response


def _form(
    site: Site, request: Request, status: int = 200, *, wrong: bool = False, wait_minutes: int = 0
) -> Response:
    secret = login_secret(request)
    target = request.query_params.get("next", "") or request.state.form.get("next", "")
    response = site.renderer.page(
        request,
        "login.html",
        status=status,
        secret=secret,
        next=_target(target),
        wrong=wrong,
        wait_minutes=wait_minutes,
        node_name=site.config.node.ae_titles[0],
    )
    keep_login_secret(response, secret, secure=site.secure)
    return response


def _target(wanted: str) -> str:
    """Return where to go after the login: a place of ours, never elsewhere."""
    inside = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    if not inside or len(wanted) > _LONGEST_PATH or not wanted.isprintable():
        return "/"
    return quote(wanted, safe="/?=&.%-_")


def _tell(site: Site, request: Request, action: str, name: str) -> None:
    """Write a login into the log and, while the node runs, into its ledger."""
    level = logging.WARNING if action == "login_refused" else logging.INFO
    event(_log, f"web_{action}", level=level, user=name, address=address(request))
    tell(site, request, action, by=name)
