"""Planted canaries: no name of a patient in the log of the page, or on a page without a login."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.log import configure
from node.store.store import Store
from tests.store_kit import store
from tests.web_kit import browser, contoured_job, log_in, origin, post, secret, site

CANARIES = ("CANARY", "GRETA", "19390404", "PAT-7741")
"""Parts of a name, a birth date and an ID."""
TYPED = "CANARY^GRETA 19390404 PAT-7741"


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Store]:
    with store(tmp_path / "data") as opened:
        yield opened


@pytest.fixture(params=["people", "json"])
def log(request) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(request.param, "DEBUG", stream)
    yield stream
    root.handlers, root.level = before, level
    logging.captureWarnings(capture=False)


def test_what_people_type_and_files_hold_never_reaches_the_log(
    data: Store, log: io.StringIO, tmp_path: Path
) -> None:
    job = contoured_job(data, tmp_path)  # its images hold CANARY^NAME

    def breaks(*_args, **_kwargs):
        raise ValueError(TYPED)

    with site(tmp_path / "data", data.ledger) as made, browser(made) as client:
        log_in(client, TYPED, TYPED)
        log_in(client, TYPED.lower(), "x")
        client.get("/login", params={"next": f"/{TYPED}"})
        assert client.get(f"/{TYPED}").status_code == 303
        log_in(client)
        found = client.get("/jobs", params={"q": TYPED})
        assert found.status_code == 200
        client.get("/studies", params={"q": TYPED})
        missing = client.get(f"/series/{TYPED}")
        nowhere = client.get(f"/{TYPED}")
        client.get(f"/jobs/{job}")
        scene = client.get(f"/jobs/{job}/scene")
        post(client, f"/jobs/{job}/cancel", reason=TYPED)
        object.__setattr__(made, "ask", breaks)
        broken = client.post(
            f"/jobs/{job}/cancel",
            data={"csrf": secret(client.get("/people").text), "reason": TYPED},
            headers=origin(client),
        )

    # Behind the login the person whose image it is must be told ...
    assert "CANARY NAME" in scene.json()["patient"]["name"]
    # ... and nowhere else: no error page repeats what was typed, no log line holds it.
    assert (missing.status_code, nowhere.status_code, broken.status_code) == (404, 404, 500)
    for canary in CANARIES:
        for page in (missing, nowhere, broken):
            assert canary not in page.text
        assert canary not in log.getvalue()
        assert canary.lower() not in log.getvalue().lower()
    assert "web_request" in log.getvalue()
    assert "web_failed" in log.getvalue()
    assert "(unknown)" in log.getvalue()


def test_pages_without_a_login_hold_nothing(data: Store, tmp_path: Path) -> None:
    contoured_job(data, tmp_path)
    with site(tmp_path / "data", data.ledger) as made, browser(made) as client:
        open_pages = [client.get(a).text for a in ("/login", "/health", "/jobs/1", "/nothing")]

    for text in open_pages:
        assert "CANARY" not in text
        assert "1.2.3" not in text
