"""The door of the page: every request passes here before anything else, every answer after.

Nobody reaches a page without a session but the login, the static files and what monitors ask. A
request that changes something must come from our own pages: by its origin and by a secret of the
session in the form. What goes wrong inside is told in one plain sentence, and logged without a
value.
"""

import logging
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.errors import LedgerError, NodeError
from node.log import event
from node.web.pictures.client import NoPicture
from node.web.sessions import Session, same
from node.web.site import Refusal, Site

PUBLIC: Final = ("/login", "/static/", "/health", "/ready", "/metrics")
"""Where nobody needs to be known; the numbers look at the address instead."""
LIVE_HEADER: Final = "x-live"
"""Marks what a page asks by itself: it does not keep a session alive."""
_LARGEST_FORM: Final = 16_384
"""Bytes of a form."""
_LOGIN_COOKIE: Final = "rtnode_login"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex, nofollow",
}

_log = logging.getLogger(__name__)


def session_cookie(*, secure: bool) -> str:
    """Return the name of the session cookie; the prefix binds it to this host (RFC 6265bis)."""
    return "__Host-rtnode" if secure else "rtnode"


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit, answer, log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._site.clock.monotonic()
        request = Request(scope, receive)
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": self._headers(scope, message["headers"])}
            await send(message)

        try:
            answer = await self._admitted(request, send_guarded)
            if answer is not None:
                await answer(scope, receive, send_guarded)
        except ClientDisconnect:
            pass
        except Exception as error:  # the edge of the page
            if status:
                event(_log, "web_answer_broken", level=logging.ERROR, error=error)
                raise
            await error_page(self._site, request, error)(scope, receive, send_guarded)
        if scope["path"].startswith("/static/"):
            return
        session: Session | None = getattr(request.state, "session", None)
        endpoint = scope.get("endpoint")
        event(
            _log,
            "web_request",
            level=logging.DEBUG if _live(request) else logging.INFO,
            method=request.method,
            page=getattr(endpoint, "__name__", None),
            job=scope.get("path_params", {}).get("job"),
            status=status,
            ms=round((self._site.clock.monotonic() - began) * 1000, 1),
            user=session.user.name if session else None,
            address=address(request),
        )

    async def _admitted(self, request: Request, send: Send) -> Response | None:
        """Run the application for a request that may pass; return what others are told."""
        token = request.cookies.get(session_cookie(secure=self._site.secure), "")
        session = self._site.sessions.find(token, touch=not _live(request)) if token else None
        request.state.session = session
        request.state.form = {}
        if session is None and not request.url.path.startswith(PUBLIC):
            return self._to_login(request)
        if request.method == "POST":
            request.state.form = form = await _form(request)
            expected = session.csrf if session else request.cookies.get(_LOGIN_COOKIE, "")
            if not (_same_origin(request) and expected and same(form.get("csrf", ""), expected)):
                raise Refusal(403, "this form is too old or came from another place")
        elif request.method not in {"GET", "HEAD"}:
            raise Refusal(405, "this cannot be done")
        await self._app(request.scope, request.receive, send)
        return None

    def _to_login(self, request: Request) -> Response:
        if _live(request) or request.method != "GET":
            return Response("log in first", status_code=401, media_type="text/plain")
        target = "" if request.url.path == "/" else f"?next={quote(request.url.path)}"
        return RedirectResponse(f"/login{target}", status_code=303)

    def _headers(self, scope: Scope, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        names = {name.lower() for name, _ in given}
        added = dict(_HEADERS)
        if b"content-security-policy" not in names:
            added["content-security-policy"] = _POLICY
        if b"cache-control" not in names:
            added["cache-control"] = "no-store"
        if scope["scheme"] == "https":
            added["strict-transport-security"] = "max-age=31536000"
        return [*given, *((name.encode(), value.encode()) for name, value in added.items())]


def error_page(site: Site, request: Request, error: Exception) -> Response:
    """Return a page that says what went wrong without a value of anybody."""
    status, message, hint = _told(error)
    if status == 500:  # noqa: PLR2004 - our own mistake
        event(_log, "web_failed", level=logging.ERROR, error=error)
    return site.renderer.page(
        request, "error.html", status=status, failed=status, message=message, hint=hint
    )


def keep_login_secret(response: Response, secret: str, *, secure: bool) -> None:
    """Bind the secret of a login form to the browser, by a cookie."""
    response.set_cookie(
        _LOGIN_COOKIE, secret, max_age=1800, httponly=True, samesite="strict", secure=secure,
        path="/login",
    )  # fmt: skip


def login_secret(request: Request) -> str:
    """Return the secret of the login form: the one that the browser has, or a new one."""
    return request.cookies.get(_LOGIN_COOKIE) or secrets.token_urlsafe(24)


def address(request: Request) -> str:
    """Return the address of the browser, as the connection has it."""
    return request.client.host if request.client else ""


def _told(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, Refusal | NoPicture):
        return error.status, str(error), error.advice
    if isinstance(error, HTTPException):
        return error.status_code, "there is no such page", "go to the overview"
    if isinstance(error, LedgerError):
        return 503, "the ledger cannot be read", error.advice
    if isinstance(error, NodeError):
        return 500, str(error), error.advice
    return 500, "a mistake of rtnode; its log says where", "tell whoever looks after the node"


def _live(request: Request) -> bool:
    return LIVE_HEADER in request.headers


def _same_origin(request: Request) -> bool:
    """Tell whether a browser sent this from our own page, as far as it says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of an urlencoded form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "only forms are taken")
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > _LARGEST_FORM:
            raise Refusal(413, "the form is too large")
    try:
        return dict(parse_qsl(received.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise Refusal(400, "the form cannot be read") from None
