"""The pages and their door, through the whole application: login, roles, forms, headers."""

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from node.control.channel import NotRunning
from node.lifecycle import JobState
from node.store.store import Store
from node.web.app import PAGES
from node.web.guard import PUBLIC
from node.web.pages import monitor
from node.web.site import Site
from tests.drift_kit import record, score
from tests.store_kit import SERIES, STUDY, claim, ct, finish, push, start_job, store
from tests.web_kit import browser, contoured_job, log_in, origin, post, secret, site

ADDRESSES = ("/", "/jobs", "/studies", "/drift", f"/studies/{STUDY}", f"/series/{SERIES}",
             "/jobs/1", "/people", "/jobs/1/scene", "/jobs/1/report",
             "/jobs/1/plane/0/0/0")  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Store]:
    with store(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def page(data: Store, tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "data", data.ledger) as made:
        yield made


@pytest.fixture
def client(page: Site) -> Iterator[httpx.Client]:
    with browser(page) as made:
        yield made


@pytest.fixture
def operator(client: httpx.Client) -> httpx.Client:
    assert log_in(client).status_code == 303
    return client


@pytest.mark.parametrize("address", ADDRESSES)
def test_nobody_sees_anything_without_a_login(data: Store, client: httpx.Client, address) -> None:
    start_job(data)

    answer = client.get(address)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")
    assert answer.content == b""


def test_every_page_but_the_login_and_what_monitors_ask_is_behind_the_door() -> None:
    """A page that is added to the table is behind the door by itself."""
    assert [address for _, address, _ in PAGES if address.startswith(PUBLIC)] == [
        "/health", "/ready", "/metrics", "/login", "/login",
    ]  # fmt: skip


def test_the_numbers_are_told_to_this_machine_and_nobody_else(client: httpx.Client) -> None:
    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "\nrtnode_running 0\n" in answer.text


def test_another_machine_reads_the_numbers_only_when_it_is_named(page: Site) -> None:
    named = page.web.model_copy(update={"metrics_from": (ipaddress.ip_network("192.0.2.0/24"),)})

    assert not monitor.may_scrape(page, "192.0.2.30")
    assert monitor.may_scrape(dataclasses.replace(page, web=named), "192.0.2.30")
    assert not monitor.may_scrape(page, "no address")


def test_a_node_that_runs_well_is_ready(client: httpx.Client) -> None:
    assert (client.get("/ready").status_code, client.get("/health").text) == (200, "ok\n")


def test_a_node_that_is_down_is_not_ready(data: Store, tmp_path: Path) -> None:
    def nobody(*_arguments, **_named):
        raise NotRunning("the node is down")

    with site(tmp_path / "data", data.ledger, ask=nobody) as made, browser(made) as visitor:
        answer = visitor.get("/ready")

    assert (answer.status_code, answer.text) == (503, "the node does not run\n")


def test_a_live_part_is_told_to_log_in(client: httpx.Client) -> None:
    assert client.get("/jobs?part=1", headers={"x-live": "1"}).status_code == 401


def test_login_leads_to_the_page_that_was_asked_for(client: httpx.Client) -> None:
    form = client.get("/login?next=/jobs/7")

    assert 'value="/jobs/7"' in form.text
    assert log_in(client, next="/jobs/7").headers["location"] == "/jobs/7"


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)",
               "/a\r\nset-cookie: x=1"],
)  # fmt: skip
def test_login_never_leads_elsewhere(client: httpx.Client, target: str) -> None:
    assert log_in(client, next=target).headers["location"] == "/"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: httpx.Client) -> None:
    cookie = log_in(client).headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie


def test_a_wrong_password_tells_nothing_about_the_name(client: httpx.Client) -> None:
    known = log_in(client, "op", "wrong password !")
    unknown = log_in(client, "nobody", "wrong password !")

    assert (known.status_code, unknown.status_code) == (401, 401)
    strip = re.compile(r'value="[^"]*"')
    assert strip.sub("", known.text) == strip.sub("", unknown.text)


def test_after_five_wrong_passwords_the_right_one_must_wait_too(client: httpx.Client) -> None:
    for _ in range(5):
        log_in(client, "op", "wrong password !")

    assert log_in(client, "op").status_code == 429


def test_a_login_form_of_another_site_is_refused(client: httpx.Client) -> None:
    token = secret(client.get("/login").text)
    data = {"name": "op", "password": "correct horse battery", "csrf": token}

    foreign = client.post("/login", data=data, headers={"origin": "https://evil.example"})
    fetched = client.post("/login", data=data, headers={"sec-fetch-site": "cross-site"})
    blind = client.post("/login", data={**data, "csrf": "guess"}, headers=origin(client))

    assert [a.status_code for a in (foreign, fetched, blind)] == [403, 403, 403]


def test_every_answer_forbids_scripts_of_others_frames_and_caches(operator: httpx.Client) -> None:
    for address in ("/", "/jobs", "/login", "/nothing"):
        headers = operator.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_no_page_has_inline_code_or_asks_elsewhere(
    data: Store, operator: httpx.Client, tmp_path: Path
) -> None:
    start_job(data)
    finish(data, tmp_path, results=2)
    for address in ("/", "/jobs", "/studies", f"/series/{SERIES}", "/jobs/1", "/people"):
        text = operator.get(address).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", text), address
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', text), address


def test_every_page_opens_in_both_languages(
    data: Store, operator: httpx.Client, tmp_path: Path
) -> None:
    job = start_job(data)
    finish(data, tmp_path, results=2)
    start_job(data, series="1.2.3.77", held=("slices are missing", "send them"))
    for language, word in (("en", "Log out"), ("ja", "ログアウト")):
        for address in (*ADDRESSES[:-3], f"/jobs/{job}", "/jobs/2", "/jobs?state=HELD&q=1.2"):
            joint = "&" if "?" in address else "?"
            answer = operator.get(f"{address}{joint}language={language}")
            assert answer.status_code == 200, address
            assert word in answer.text


def test_a_held_job_says_why_and_what_to_do_and_is_released(
    data: Store, operator: httpx.Client
) -> None:
    job = start_job(data, held=("two slices are missing", "send them once more"))
    text = operator.get(f"/jobs/{job}").text
    assert "two slices are missing" in text
    assert "send them once more" in text

    answer = post(operator, f"/jobs/{job}/retry")

    assert answer.headers["location"] == f"/jobs/{job}?done=retry"
    assert "Released." in operator.get(answer.headers["location"]).text
    found = data.ledger.job(job)
    assert found is not None
    assert found.state is JobState.SCHEDULED
    assert ("operator_retry", "op") in [
        (e.action, e.detail.get("by")) for e in data.ledger.recent_actions()
    ]


@pytest.mark.parametrize("action", ["cancel", "resend"])
def test_what_cannot_be_undone_needs_a_reason(data: Store, operator, action: str) -> None:
    job = start_job(data)

    assert post(operator, f"/jobs/{job}/{action}", reason="  ").status_code == 400
    found = data.ledger.job(job)
    assert found is not None
    assert found.state is JobState.SCHEDULED


def test_a_job_is_canceled_with_a_reason(data: Store, operator: httpx.Client) -> None:
    job = start_job(data)

    assert post(operator, f"/jobs/{job}/cancel", reason="wrong patient").status_code == 303

    found = data.ledger.job(job)
    assert found is not None
    assert (found.state, found.reason) == (JobState.CANCELED, "wrong patient")


def test_results_that_a_gate_holds_are_sent_with_a_reason_only(
    data: Store, operator: httpx.Client, tmp_path: Path
) -> None:
    job = start_job(data)
    finish(data, tmp_path, results=2, hold=("the lungs are cut off", "look at the report"))
    overview, page = operator.get("/").text, operator.get(f"/jobs/{job}").text

    refused = post(operator, f"/jobs/{job}/retry")
    waiting = data.ledger.claim_deliveries("pacs", 5)
    done = post(operator, f"/jobs/{job}/retry", reason="checked by eye")

    assert overview.count("the lungs are cut off") == 1  # one line, not one for each object
    assert f'href="/jobs/{job}"' in overview
    assert "Why the results are held" in page
    assert 'id="retry"' not in page
    assert (refused.status_code, waiting, done.status_code) == (400, [], 303)
    assert len(data.ledger.claim_deliveries("pacs", 5)) == 2
    last = next(e for e in data.ledger.recent_actions() if e.action == "operator_retry")
    assert (last.detail["by"], last.detail["reason"]) == ("op", "checked by eye")


def test_results_are_sent_again(data: Store, operator: httpx.Client, tmp_path: Path) -> None:
    job = start_job(data)
    finish(data, tmp_path, results=1)
    for delivery in data.ledger.claim_deliveries("pacs", 5):
        data.ledger.delivery_sent(delivery.id, status=0)

    assert post(operator, f"/jobs/{job}/resend", reason="lost").status_code == 303

    assert len(data.ledger.claim_deliveries("pacs", 5)) == 1


def test_a_series_is_declared_complete(data: Store, operator: httpx.Client) -> None:
    push(data, ct(1))

    answer = post(operator, f"/series/{SERIES}/complete", reason="one slice is all")

    assert answer.status_code == 303
    assert "declared complete by op: one slice is all" in operator.get(f"/series/{SERIES}").text


def test_what_the_node_refuses_is_told_in_its_words(data: Store, operator: httpx.Client) -> None:
    job = start_job(data)

    answer = post(operator, f"/jobs/{job}/retry")

    assert answer.status_code == 409
    assert "none of its deliveries is held" in answer.text


def test_a_viewer_sees_no_button_and_can_press_none(data: Store, client: httpx.Client) -> None:
    job = start_job(data, held=("why", "what"))
    log_in(client, "view")

    assert 'id="retry"' not in client.get(f"/jobs/{job}").text
    assert post(client, f"/jobs/{job}/retry").status_code == 403
    found = data.ledger.job(job)
    assert found is not None
    assert found.state is JobState.HELD


def test_a_form_without_the_secret_of_the_session_does_nothing(
    data: Store, operator: httpx.Client
) -> None:
    job = start_job(data, held=("why", "what"))

    bare = operator.post(f"/jobs/{job}/retry", data={"csrf": ""}, headers=origin(operator))
    foreign = operator.post(
        f"/jobs/{job}/retry",
        data={"csrf": secret(operator.get("/").text)},
        headers={"origin": "https://evil.example"},
    )

    assert (bare.status_code, foreign.status_code) == (403, 403)
    found = data.ledger.job(job)
    assert found is not None
    assert found.state is JobState.HELD


def test_odd_requests_are_refused_plainly(operator: httpx.Client) -> None:
    assert operator.get("/nothing").status_code == 404
    assert operator.get("/jobs/999").status_code == 404
    assert operator.get("/series/9.9").status_code == 404
    assert operator.get("/jobs/1/report/..%2F..%2Fledger.db").status_code == 404
    assert operator.delete("/jobs/1").status_code == 405
    assert operator.post("/logout", json={}).status_code == 415
    assert operator.post("/logout", content=b"a=" + b"b" * 20_000, headers={
        "content-type": "application/x-www-form-urlencoded"}).status_code == 413  # fmt: skip
    assert operator.get("/jobs?page=99999999999&q=%00%ff").status_code == 200


def test_logging_out_ends_the_session(operator: httpx.Client) -> None:
    assert post(operator, "/logout").headers["location"] == "/login"

    assert operator.get("/jobs").status_code == 303


def test_texts_of_peers_are_never_code(data: Store, operator: httpx.Client) -> None:
    start_job(data, held=("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'))

    for address in ("/", "/jobs", "/jobs/1"):
        text = operator.get(address).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text


def test_a_report_is_shown_in_a_sandbox(data: Store, operator, tmp_path: Path) -> None:
    job = start_job(data)
    running = claim(data)
    folder = tmp_path / "data" / "work" / "1-1" / "report"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<h1>report</h1>")
    (folder / "dvh.csv").write_text(
        "region,dose_gy,volume_percent,volume_cc\nPTV,0,100,9\nPTV,2,50,4\n"
    )
    (folder.parent / "secret.png").write_bytes(b"x")
    data.ledger.finish_job(
        running.id, running.token, [], findings=[], figures={}, report=str(folder)
    )

    answer = operator.get(f"/jobs/{job}/report")
    dvh = operator.get(f"/jobs/{job}/dvh").json()

    assert answer.text == "<h1>report</h1>"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert dvh["curves"] == [{"name": "PTV", "x": [0.0, 2.0], "y": [100.0, 50.0]}]
    assert operator.get(f"/jobs/{job}/report/..%2Fsecret.png").status_code == 404
    assert operator.get(f"/jobs/{job}/report/secret.png").status_code == 404


def test_a_report_outside_the_work_folder_is_never_opened(
    data: Store, operator: httpx.Client, tmp_path: Path
) -> None:
    job = start_job(data)
    running = claim(data)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "index.html").write_text("no")
    data.ledger.finish_job(
        running.id, running.token, [], findings=[], figures={},
        report=str(tmp_path / "elsewhere"),
    )  # fmt: skip

    assert operator.get(f"/jobs/{job}/report").status_code == 404


def test_static_files_are_cached_by_their_content(client: httpx.Client) -> None:
    address = re.search(r'href="(/static/app.css\?v=\w+)"', client.get("/login").text)
    assert address is not None

    answer = client.get(address.group(1))

    assert "immutable" in answer.headers["cache-control"]
    assert client.get("/static/app.css?v=old").headers["cache-control"] == "no-cache"
    assert client.get("/static/..%2Fserver.py").status_code == 404


def test_a_look_at_images_is_written_down_once_a_session(
    data: Store, operator: httpx.Client, tmp_path: Path
) -> None:
    job = contoured_job(data, tmp_path)
    for _ in range(3):
        assert operator.get(f"/jobs/{job}/scene").status_code == 200
    operator.get("/series/1.2.3.2/scene")

    looks = [e for e in data.ledger.explain(f"job:{job}") if e.action == "web_viewed"]
    assert [(e.kind, e.detail["by"], e.detail["address"]) for e in looks] == [
        ("job", "op", "127.0.0.1")
    ]
    assert data.ledger.has_event("web_viewed", "1.2.3.2")


def test_the_drift_page_says_what_is_there_and_refuses_what_is_not(
    data: Store, operator: httpx.Client, tmp_path: Path
) -> None:
    assert "no approved structure set has come back" in operator.get("/drift").text
    assert operator.get("/drift?measure=secrets").status_code == 404
    contoured_job(data, tmp_path)
    record(data, 1, [score(0.9, "<b>Body</b>"), score(1.0, "Lung_L")])

    shown = operator.get("/drift?measure=volume").text

    assert "<svg" in shown
    assert "&lt;b&gt;Body" in shown
    assert "<b>Body" not in shown
    assert "limits after this many values" in shown
