"""What the receiver is told of the configuration."""

import json

from node.config.model import Config
from node.scp.settings import ReceiverSettings

TREE = {
    "node": {
        "ae_titles": ["RTNODE"],
        "data_dir": "data",
        "tls": {"certificate": "a.crt", "key": "a.key", "authorities": "ca.crt", "port": 12762},
    },
    "peers": {
        "tps": {
            "ae_title": "TPS", "receive": True, "addresses": ["192.0.2.7"], "tls": True,
        },
        "ct": {"ae_title": "CT", "receive": True, "addresses": ["192.0.2.0/24"]},
        "pacs": {"ae_title": "PACS", "host": "pacs", "port": 104},
    },
}  # fmt: skip


def settings(tree: dict) -> ReceiverSettings:
    return ReceiverSettings.of(Config.model_validate_json(json.dumps(tree)))


def test_only_peers_that_may_send_are_allowed_and_tls_peers_are_known():
    told = settings(TREE)

    assert set(told.allowed) == {"TPS", "CT"}
    assert told.tls_only == {"TPS"}
    assert told.tls_port == 12762
    assert told.credentials is not None
    assert told.credentials.certificate.name == "a.crt"


def test_without_certificates_there_is_no_tls_port():
    node = {name: value for name, value in TREE["node"].items() if name != "tls"}

    told = settings({"node": node})

    assert (told.tls_port, told.credentials, told.tls_only) == (None, None, frozenset())


def test_a_peer_with_an_identity_has_it_under_its_ae_title():
    tps = TREE["peers"]["tps"] | {"tls_identity": ["DNS:TPS.example", "CN=tps"]}

    told = settings(TREE | {"peers": TREE["peers"] | {"tps": tps}})

    assert told.tls_identities == {"TPS": {"DNS:tps.example", "CN=tps"}}
    assert settings(TREE).tls_identities == {}
