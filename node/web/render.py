"""Templates and static files: read once, escaped always, named by their content."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from node.web.words import LANGUAGES, Words

_HERE: Final = Path(__file__).resolve().parent
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LANGUAGE_COOKIE: Final = "rtnode_language"
_TINY: Final = 0.001
"""Smaller figures are shown as such; the report has all digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    """A file that anybody may have: style, script, icon."""

    content: bytes
    media_type: str
    version: str
    """Start of its SHA-256: part of the address, so that it may be cached for ever."""


class Renderer:
    """Makes pages from templates.

    Parameters
    ----------
    language : str
        Of a person who has not chosen one.
    """

    def __init__(self, language: str) -> None:
        self._language = language
        self.files: Mapping[str, StaticFile] = _static_files()
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(
            at=at, duration=duration, number=number, size=size, short=short
        )
        self._environment.globals.update(static=self._address)

    def words(self, request: Request) -> Words:
        """Return the strings in the language of the request."""
        asked = request.query_params.get("language") or request.cookies.get(LANGUAGE_COOKIE)
        return Words(asked if asked and asked in LANGUAGES else self._language)

    def page(
        self, request: Request, template: str, *, status: int = 200, **context: object
    ) -> HTMLResponse:
        """Return a page."""
        session = getattr(request.state, "session", None)
        words = self.words(request)
        text = self._environment.get_template(template).render(
            t=words,
            language=words.language,
            languages=LANGUAGES,
            user=session.user if session else None,
            csrf=session.csrf if session else "",
            path=request.url.path,
            with_query=_with_query(request),
            now=datetime.now(UTC),
            **context,
        )
        response = HTMLResponse(text, status_code=status)
        if request.query_params.get("language") in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE,
                words.language,
                max_age=365 * 86_400,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
            )
        return response

    def _address(self, name: str) -> str:
        return f"/static/{name}?v={self.files[name].version}"


def _with_query(request: Request) -> Any:  # noqa: ANN401 - a function for templates
    """Return a function that gives the address of this page with other query values."""

    def address(**changes: object) -> str:
        query: dict[str, object] = dict(request.query_params)
        query.pop("part", None)
        query.update(changes)
        kept = {key: value for key, value in query.items() if value not in ("", None)}
        return f"{request.url.path}?{urlencode(kept)}" if kept else request.url.path

    return address


def _static_files() -> dict[str, StaticFile]:
    found = {}
    for path in sorted((_HERE / "static").iterdir()):
        content = path.read_bytes()
        found[path.name] = StaticFile(
            content=content,
            media_type=_TYPES[path.suffix],
            version=hashlib.sha256(content).hexdigest()[:12],
        )
    return found


def at(value: datetime | None) -> str:
    """Return a time in the zone of the machine, to the second."""
    return "–" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """Return a span of time in at most two units."""
    if seconds is None:
        return "–"
    if seconds < 10:  # noqa: PLR2004 - below ten a tenth matters
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, length, below, small in (("d", 86_400, 3_600, "h"), ("h", 3_600, 60, "min"),
                                       ("min", 60, 1, "s")):  # fmt: skip
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // below} {small}"
    return f"{whole} s"


def number(value: object) -> str:
    """Return a number as people read it: four digits that mean something."""
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and 0 < abs(value) < _TINY:
        return f"< {_TINY}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"  # noqa: PLR2004 - no exponents
    return str(value)


def size(count: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def short(uid: str, keep: int = 12) -> str:
    """Return the end of a long UID, which tells it from others."""
    return uid if len(uid) <= keep + 1 else f"…{uid[-keep:]}"
