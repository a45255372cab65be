"""What an operator may do; each action names the user and goes through the running node."""

import logging
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from node.log import event
from node.web.pages.job import is_blocked
from node.web.site import Refusal, Site

_COMMANDS: Final = {"retry": "retry", "cancel": "cancel", "resend": "resend"}
"""Last part of the address -> command of the node."""
_NEED_REASON: Final = frozenset({"cancel", "resend", "complete"})

_log = logging.getLogger(__name__)


def on_job(site: Site, request: Request) -> Response:
    """Retry (or release), cancel, or send the results of a job once more."""
    job, action = request.path_params["job"], request.path_params["action"]
    command = _COMMANDS.get(action)
    if command is None:
        raise Refusal(404, "there is no such action")
    detail = site.ledger().job_detail(job)
    if command == "retry" and detail is not None and is_blocked(detail):
        _require_reason(request)  # a gate said no: whoever overrules it says why
    _act(site, request, command, job=job)
    return RedirectResponse(f"/jobs/{job}?done={action}", status_code=303)


def complete(site: Site, request: Request) -> Response:
    """Declare a series complete as it is."""
    uid = request.path_params["uid"]
    _act(site, request, "complete", series=uid)
    return RedirectResponse(f"/series/{quote(uid)}?done=complete", status_code=303)


def _act(site: Site, request: Request, command: str, **subject: str | int) -> None:
    user = request.state.session.user
    if not user.may_act:
        raise Refusal(403, "this needs an operator", hint="ask one; you may look at everything")
    if command in _NEED_REASON:
        _require_reason(request)
    reason = request.state.form.get("reason", "").strip()
    site.command(command, by=user.name, reason=reason, **subject)
    event(_log, "web_action", what=command, user=user.name, job=subject.get("job"))


def _require_reason(request: Request) -> None:
    if not request.state.form.get("reason", "").strip():
        raise Refusal(400, "this needs a reason", hint="say in a few words why")
