"""Who did what: actions, logins, refusals."""

from starlette.requests import Request
from starlette.responses import Response

from node.web.site import Site


def people(site: Site, request: Request) -> Response:
    """List what people did lately, and who may log in."""
    return site.renderer.page(
        request,
        "people.html",
        events=site.ledger().recent_actions(),
        users=sorted(site.users.all().values(), key=lambda user: user.name),
    )
