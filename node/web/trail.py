"""What the page adds to the audit trail: who logged in, and whose images were looked at."""

import logging
from typing import Final

from pydantic import JsonValue
from starlette.requests import Request

from node.log import event
from node.web.guard import address
from node.web.site import Refusal, Site

_log = logging.getLogger(__name__)
_MOST: Final = 1000
"""Subjects of one session that are remembered as written down."""


def tell(site: Site, request: Request, action: str, **arguments: JsonValue) -> None:
    """Write something into the ledger of the running node; the log says where that failed."""
    try:
        site.command("audit", action=action, address=address(request), **arguments)
    except Refusal as error:
        event(_log, "web_audit_missing", level=logging.WARNING, what=action, reason=str(error))


def viewed(site: Site, request: Request, kind: str, subject: str) -> None:
    """Write down, once a session, that a person looks at the images of a job, series or study."""
    session = request.state.session
    if session is None or f"{kind} {subject}" in session.viewed:
        return
    if len(session.viewed) >= _MOST:
        session.viewed.clear()
    session.viewed.add(f"{kind} {subject}")
    tell(site, request, "viewed", by=session.user.name, kind=kind, subject=subject)
