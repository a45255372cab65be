"""``rtnode check`` judges certificates and keys as a start would."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli.exits import Exit
from node.cli.main import main
from tests.tls_kit import OPENSSL, authority

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    credentials = authority(tmp_path / "tls").issue("node")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""\
node:
  ae_titles: ["RTNODE"]
  data_dir: data
  tls:
    certificate: {credentials.certificate}
    key: {credentials.key}
    authorities: {credentials.authorities}
receive: {{unknown_peers: accept}}
"""
    )
    return path


def test_the_port_and_the_end_of_the_certificate_are_told(config: Path) -> None:
    result = CliRunner().invoke(main, ["check", "-c", str(config)])

    assert result.exit_code == Exit.DONE, result.output
    assert "0.0.0.0:2762 over TLS; certificate until 20" in result.output


def test_a_key_that_others_can_read_is_a_problem_with_what_to_do(config: Path) -> None:
    key = config.parent / "tls/node.key"
    key.chmod(0o644)

    result = CliRunner().invoke(main, ["check", "-c", str(config)])

    assert result.exit_code == Exit.USAGE
    assert f"node.tls.key: {key} is open to others (mode 0644); chmod 0600" in result.output
