"""``rtnode conformance``: the statement speaks of the configuration that it was printed from."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli.conformance.markdown import anchor, contents, table
from node.cli.conformance.objects import CREATED
from node.cli.main import main
from pipelines.catalog import PIPELINES

CONFIG = """\
node: {ae_titles: ["RTPLAN1", "RTPLAN2"], port: 10104, max_associations: 7, data_dir: data}
receive: {unknown_peers: accept}
retention: {keep_days: 30}
peers:
  pacs: {ae_title: "ARCHIVE", host: pacs.example.org, port: 104, query: true, pull: get,
         commitment: true, receive: true, addresses: ["192.0.2.7"]}
folders: {out: {path: results}}
dicomweb: {cloud: {url: "https://user:secret@web.example.org/dicom", pull: true}}
audit: {host: log.example.org, certificate: a.crt, key: a.key, authorities: ca.crt}
routes:
  - {name: dose, match: {kind: [RTDOSE]}, pipeline: dose_radiomics, destinations: [pacs],
     settings: {dvh_object: true}}
  - {name: rest, enabled: false, match: {kind: [CT]}, pipeline: autocontour, destinations: [out]}
"""


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    done = CliRunner().invoke(main, ["conformance", "-c", str(path)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    "line",
    [
        "| RTPLAN1 | 0.0.0.0 | 10104 | called and calling |",
        "| RTPLAN2 | 0.0.0.0 | 10104 | called |",
        "| `node.max_associations` | 7 |",
        "| Query/Retrieve, Study Root: GET | yes (`peers.*.pull: get`) | no | yes |",
        "| Query/Retrieve, Study Root: MOVE | yes (`peers.*.pull: move`) | no | no |",
        "(here: after 30 days)",
        "**accepted, whoever they are** here",
        "| out | destination folder | results |",
        "| cloud | DICOMweb server | https://user:***@web.example.org/dicom |",
        "with `audit`: here to log.example.org:6514",
    ],
)
def test_the_site_is_in_the_statement(page: str, line: str) -> None:
    assert line in page


def test_a_peer_is_told_with_its_address_and_services(page: str) -> None:
    (row,) = (line for line in page.splitlines() if line.startswith("| pacs |"))

    assert "| ARCHIVE | 192.0.2.7/32 | pacs.example.org:104 | no |" in row
    for service in ("storage from it", "storage to it", "commitment", "query", "C-GET"):
        assert service in row


def test_created_here_is_what_an_enabled_route_makes(page: str) -> None:
    overview = page.split("### 1.2", maxsplit=1)[0].splitlines()
    rows = {line.split(" | ")[0]: line for line in overview if " Storage | " in line}

    assert "dose_radiomics (`dvh_object`) | yes |" in rows["| RT Dose Storage"]
    assert "autocontour, synthetic_ct (`contours`) | no |" in rows["| RT Structure Set Storage"]
    assert "| no |" in rows["| Segmentation Storage"]


def test_the_statement_goes_to_a_file_when_one_is_named(tmp_path: Path, page: str) -> None:
    path = tmp_path / "config.yaml"
    out = tmp_path / "statement.md"

    done = CliRunner().invoke(main, ["conformance", str(out), "-c", str(path)])

    assert done.output == f"wrote {out}\n"
    assert out.read_text(encoding="utf-8") == page


def test_every_created_object_belongs_to_pipelines_and_settings_that_exist() -> None:
    for created in CREATED:
        assert created.attributes()
        for pipeline, setting in created.settings.items():
            fields = PIPELINES[pipeline].settings.model_fields
            assert not setting or setting in fields
    assert {p for c in CREATED for p in c.settings} == set(PIPELINES)


def test_contents_link_to_headings_and_leave_code_out() -> None:
    text = "# T\n## 1. One `x`\n```\n## no\n```\n### 1.1 Two, three\n#### deep\n"

    assert contents(text, levels=(2, 3)) == (
        "- [1. One `x`](#1-one-x)\n  - [1.1 Two, three](#11-two-three)\n"
    )
    assert anchor("Annex A. Created objects") == "annex-a-created-objects"


def test_a_cell_cannot_break_its_table() -> None:
    assert table(("a", "b"), [("x|y", "")]) == "| a | b |\n| --- | --- |\n| x\\|y | - |\n"
