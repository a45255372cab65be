"""Settings of destinations: what needs what, and names that must exist."""

from pathlib import Path

import pytest

from node.config.load import load
from node.config.model import DicomWeb, Peer, Pull
from node.errors import ConfigError

HEAD = """
node: {{ae_titles: ["RTNODE"], data_dir: "data"}}
peers:
  pacs: {{ae_title: "PACS", host: "pacs", port: 104, {more}}}
  ct: {{ae_title: "CT1", receive: true, addresses: ["192.0.2.1"]}}
folders: {{shelf: {{path: "shelf"}}}}
dicomweb: {{cloud: {{url: "https://cloud.example.org/web"}}}}
"""


def loaded(folder: Path, more: str):
    path = folder / "config.yaml"
    path.write_text(HEAD.format(more=more))
    return load(path)


@pytest.mark.parametrize("fallback", ["shelf", "cloud"])
def test_a_folder_or_a_dicomweb_server_may_be_a_fallback(tmp_path, fallback):
    config = loaded(tmp_path, f'fallback: "{fallback}"')

    assert config.peers["pacs"].fallback == fallback


@pytest.mark.parametrize(
    ("fallback", "words"),
    [
        ("pacs", "a peer is no fallback of itself"),
        ("ct", "has no host and port"),
        ("shelff", "did you mean 'shelf'"),
    ],
)
def test_a_fallback_must_be_somebody_else_that_can_be_sent_to(tmp_path, fallback, words):
    with pytest.raises(ConfigError, match=words):
        loaded(tmp_path, f'fallback: "{fallback}"')


def test_a_name_stands_for_one_destination(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD.format(more="query: true").replace("cloud: {", "shelf: {"))

    with pytest.raises(ConfigError, match="'shelf' is a folder already"):
        load(path)


@pytest.mark.parametrize("setting", [{"commitment": True}, {"query": True}, {"fallback": "x"}])
def test_asking_a_peer_needs_its_address(setting):
    with pytest.raises(ValueError, match="need host and port"):
        Peer(ae_title="A", receive=True, addresses=("192.0.2.1",), **setting)


def test_fetching_needs_queries():
    with pytest.raises(ValueError, match="pull needs query"):
        Peer(ae_title="A", host="a", port=104, pull=Pull.MOVE)


@pytest.mark.parametrize("url", ["ftp://x/web", "https://x/web?a=b", "x.example.org", ""])
def test_a_dicomweb_url_is_one(url):
    with pytest.raises(ValueError, match="pattern"):
        DicomWeb(url=url)


def test_a_user_needs_a_password():
    with pytest.raises(ValueError, match="user needs secret_file"):
        DicomWeb(url="https://x", user="rtnode")
