"""From the configuration to receiver, peers and folders."""

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from node.config.model import Config
from node.scp.settings import ReceiverSettings
from node.scu.delivery import RetryPolicy
from node.scu.destinations import FolderDestination, PeerDestination, destinations_of, peer_of


@pytest.fixture
def config(tmp_path) -> Config:
    return Config.model_validate(
        {
            "node": {"ae_titles": ("RTNODE", "RTTEST"), "data_dir": tmp_path, "port": 11113},
            "peers": {
                "ct": {"ae_title": "CTSIM1", "receive": True, "addresses": ("192.0.2.0/24",)},
                "pacs": {"ae_title": "PACS", "host": "pacs", "port": 104},
            },
            "folders": {"results": {"path": Path("/srv/results")}},
            "delivery": {"first_s": 1.0, "max_s": 60.0, "give_up_after_days": 2.0},
        },
        strict=False,
    )


def test_only_peers_that_may_send_are_allowed(config):
    settings = ReceiverSettings.of(config)

    assert settings.allowed == {"CTSIM1": (ip_network("192.0.2.0/24"),)}
    assert settings.ae_titles == ("RTNODE", "RTTEST")
    assert settings.port == 11113
    assert not settings.accept_unknown


def test_destinations_are_the_peers_with_a_host_and_the_folders(config):
    found = {d.name: type(d) for d in destinations_of(config)}

    assert found == {"pacs": PeerDestination, "results": FolderDestination}


def test_we_call_with_the_first_of_our_titles(config):
    peer = peer_of(config, "pacs")

    assert peer is not None
    assert (peer.ae_title, peer.host, peer.port) == ("PACS", "pacs", 104)
    assert peer.calling_ae_title == "RTNODE"
    assert peer_of(config, "ct") is None


def test_the_retry_policy_is_the_configured_one(config):
    assert RetryPolicy.of(config.delivery) == RetryPolicy(
        first_s=1.0, max_s=60.0, give_up_after=timedelta(days=2)
    )
