"""DICOM TLS in the configuration: who uses it needs our certificate."""

from pathlib import Path

import pytest

from node.config.load import load
from node.errors import ConfigError
from node.tls import DEFAULT_PORT

BASE = """
node:
  ae_titles: ["RTNODE"]
  data_dir: "data"
{tls}
peers:
  pacs: {{ae_title: "PACS", host: "pacs.example.org", port: 2762, tls: true}}
"""
TLS = """
  tls:
    certificate: "tls/rtnode.crt"
    key: "tls/rtnode.key"
    authorities: "tls/authorities.crt"
"""


def written(folder: Path, tls: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(BASE.format(tls=tls))
    return path


def test_paths_start_at_the_folder_of_the_file_and_the_port_is_the_registered_one(tmp_path):
    section = load(written(tmp_path, TLS)).node.tls

    assert section is not None
    assert section.port == DEFAULT_PORT == 2762
    assert section.credentials().key == tmp_path / "tls/rtnode.key"
    assert not section.credentials().only_tls_1_3


def test_the_oldest_version_can_be_raised(tmp_path):
    section = load(written(tmp_path, TLS + '    minimum_version: "1.3"\n')).node.tls

    assert section is not None
    assert section.credentials().only_tls_1_3


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("", "peers.pacs.tls: needs our certificate and key under node.tls"),
        (TLS + "    kay: 1\n", "node.tls.kay: not a known key; did you mean 'key'?"),
        (TLS + '    minimum_version: "1.1"\n', "'1.1' is not one of 1.2, 1.3"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(tmp_path, tls, said):
    with pytest.raises(ConfigError, match=r".") as refused:
        load(written(tmp_path, tls))

    assert any(said in problem for problem in refused.value.problems), refused.value.problems
