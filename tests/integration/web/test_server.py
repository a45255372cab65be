"""The process itself: what it refuses to be, HTTPS, its command line, and a running node."""

import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from node.cli.main import main
from node.config.load import load
from node.errors import ConfigError
from node.lifecycle import JobState
from node.web.server import Served, site_of
from node.web.users import UsersUnusable
from tests import node_kit
from tests.node_kit import settings, until
from tests.store_kit import ct
from tests.web_kit import PASSWORD, QUICK, log_in, origin, secret

ROOT = Path(__file__).resolve().parents[3]


def write_config(folder: Path, **web) -> Path:
    tree = settings(folder / "data", 1) | {"web": {"listen": "127.0.0.1:0", **web}}
    (folder / "data").mkdir(exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree))
    return path


def run_cli(path: Path, *words: str, text: str = ""):
    return CliRunner().invoke(main, ["web", "-c", str(path), *words], input=text)


@pytest.mark.parametrize("listen", ["0.0.0.0:8443", "192.0.2.1:80", "[::]:8443"])
def test_it_is_seen_from_outside_with_tls_only(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="seen from outside: give tls"):
        load(write_config(tmp_path, listen=listen))

    tls = {"certificate": "a.crt", "key": "a.key"}
    assert load(write_config(tmp_path, listen=listen, tls=tls)).web is not None


@pytest.mark.parametrize("listen", ["localhost:80", "8080", "127.0.0.1", "127.0.0.1:70000"])
def test_a_listen_address_that_is_none_is_told(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"web\.listen"):
        load(write_config(tmp_path, listen=listen))


def test_it_is_off_without_its_section(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    tree = json.loads(path.read_text())
    del tree["web"]
    path.write_text(json.dumps(tree))

    done = run_cli(path)

    assert done.exit_code == 2
    assert "the page is off" in done.output


def test_it_does_not_start_while_nobody_may_log_in(tmp_path: Path) -> None:
    with (
        pytest.raises(UsersUnusable, match="nobody may log in"),
        site_of(load(write_config(tmp_path))),
    ):
        pass


def test_users_are_added_listed_and_removed_on_the_command_line(tmp_path: Path) -> None:
    path = write_config(tmp_path)

    added = run_cli(path, "user", "add", "m.tanaka", "--role", "operator", "--password-stdin",
                    text=PASSWORD + "\n")  # fmt: skip
    listed = run_cli(path, "user", "list", "--json")
    short = run_cli(path, "user", "add", "b", "--password-stdin", text="short\n")
    removed = run_cli(path, "user", "remove", "m.tanaka")

    assert (added.exit_code, removed.exit_code) == (0, 0), added.output
    assert json.loads(listed.stdout) == [{"name": "m.tanaka", "role": "operator"}]
    assert short.exit_code == 1
    assert "characters" in short.output
    assert PASSWORD not in added.output
    assert json.loads((tmp_path / "data" / "web-users.json").read_text()) == {"users": {}}


def test_https_has_secure_cookies_and_no_old_protocol(tmp_path: Path) -> None:
    key, certificate = tmp_path / "web.key", tmp_path / "web.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    path = write_config(tmp_path, tls={"certificate": str(certificate), "key": str(key)})
    add_user(path)
    trust = ssl.create_default_context(cafile=str(certificate))
    old = ssl.create_default_context(cafile=str(certificate))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("RSA+AES")

    with (
        site_of(load(path)) as site,
        Served(site) as address,
        httpx.Client(base_url=address, verify=trust, timeout=30) as client,
    ):
        answer = log_in(client, "m.tanaka")
        with httpx.Client(verify=old) as weak, pytest.raises(httpx.ConnectError):
            weak.get(f"{address}/login")

    assert address.startswith("https://")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-rtnode=")
    assert "Secure" in cookie
    assert "max-age" in answer.headers["strict-transport-security"]


def test_a_held_job_of_a_running_node_is_retried_from_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: page, control channel, node, engine; and the name in the ledger."""
    flag = tmp_path / "once"
    monkeypatch.setenv("FAKE", json.dumps({"fail": "reject", "once": str(flag)}))
    path = write_config(tmp_path)
    add_user(path)
    with node_kit.node(tmp_path / "data", 1) as node:
        assert set(node_kit.send(node.port, [ct(n) for n in (1, 2, 3)])) == {0}
        ledger = node.store.ledger
        until(lambda: ledger.jobs([JobState.HELD]), 60, "no job was held")
        with (
            site_of(load(path)) as site,
            Served(site) as address,
            httpx.Client(base_url=address, timeout=30) as client,
        ):
            log_in(client, "m.tanaka")
            page = client.get("/jobs/1")
            token = secret(page.text)
            done = client.post("/jobs/1/retry", data={"csrf": token}, headers=origin(client))
            until(lambda: ledger.jobs([JobState.COMPLETED]), 60, "it did not run again")
            after = client.get("/jobs/1").text

    assert "Why it is held" in page.text
    assert done.status_code == 303
    assert "A person released it" in after
    assert "m.tanaka" in after


def test_the_page_shows_the_ledger_while_the_node_is_down(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    add_user(path)
    with node_kit.node(tmp_path / "data", 1):
        pass
    with (
        site_of(load(path)) as site,
        Served(site) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        log_in(client, "m.tanaka")
        page = client.get("/").text
        refused = client.post("/jobs/1/retry", data={"csrf": secret(page)}, headers=origin(client))

    assert "The node is down" in page
    assert refused.status_code == 503


def test_before_the_node_ever_ran_the_page_says_so(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    add_user(path)
    with (
        site_of(load(path)) as site,
        Served(site) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        log_in(client, "m.tanaka")
        answer = client.get("/")

    assert answer.status_code == 503
    assert "the ledger cannot be read" in answer.text


def test_the_command_serves_until_sigterm(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    add_user(path)
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "web", "-c", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        port = ready.split("port=")[1].split()[0]
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).text == "ok\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 0, err
    assert "web_stopped" in out


def test_the_page_loads_no_image_or_learning_library() -> None:
    heavy = ("torch", "SimpleITK", "highdicom", "matplotlib", "scipy", "pydicom", "numpy",
             "pynetdicom")  # fmt: skip
    code = f"import sys, node.web.server; print(*[m for m in {heavy} if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip

    assert set(done.stdout.split()) <= {"numpy", "pydicom"}


def add_user(path: Path) -> None:
    from node.web.users import Role, Users  # noqa: PLC0415 - beside its double cost

    Users(path.parent / "data" / "web-users.json", QUICK).put("m.tanaka", Role.OPERATOR, PASSWORD)
