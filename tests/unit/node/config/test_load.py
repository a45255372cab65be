"""Wrong configurations, and the line and words that tell what is wrong with each."""

from pathlib import Path

import pytest

from node.config.load import load
from node.config.match import Contains
from node.config.model import Config
from node.errors import ConfigError

BASE = """\
node:
  ae_titles: ["RTNODE"]
  data_dir: data
peers:
  ctsim: {ae_title: "CTSIM1", receive: true, addresses: [192.0.2.10]}
  pacs: {ae_title: "PACS", host: pacs, port: 104}
routes:
  - name: contours
    match: {kind: [CT]}
    pipeline: autocontour
    destinations: [pacs]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong with `text`, without the folder in front."""
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [problem.removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def changed(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


def test_a_right_configuration_loads_into_frozen_models(tmp_path: Path) -> None:
    config = load(written(tmp_path, BASE))

    assert config.peers["pacs"].port == 104
    assert config.routes[0].destinations == ("pacs",)
    with pytest.raises(Exception, match="frozen"):
        config.node.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.peers["other"] = config.peers["pacs"]  # type: ignore[index]


def test_a_relative_path_starts_at_the_folder_of_the_file(tmp_path: Path) -> None:
    config = load(written(tmp_path, BASE))

    assert config.node.data_dir == tmp_path / "data"


def test_every_problem_of_a_file_comes_at_once_in_the_order_of_its_lines(tmp_path: Path) -> None:
    text = BASE.replace("ae_titles", "ae_title").replace("port: 104", "prot: 104")
    text = text.replace("autocontour", "autocontur").replace("[pacs]", "[paccs]")

    assert problems(tmp_path, text) == [
        'config.yaml:1: node.ae_titles: is missing; for example ae_titles: ["RTNODE"]',
        "config.yaml:2: node.ae_title: not a known key; did you mean 'ae_titles'?",
        "config.yaml:6: peers.pacs.prot: not a known key; did you mean 'port'?",
        "config.yaml:10: routes.0.pipeline: 'autocontur' is not one of autocontour, synthetic_ct,"
        " dose_radiomics, image_radiomics, image_quality; did you mean 'autocontour'?",
        "config.yaml:11: routes.0.destinations.0: 'paccs' is no peer and no folder;"
        " did you mean 'pacs'?",
    ]


WRONG = {
    "yaml-1.1-boolean": (
        ("receive: true", "receive: yes"),
        "5: peers.ctsim.receive: 'yes' is text in YAML 1.2; write true",
    ),
    "number-as-ae-title": (
        ('"PACS"', "0104"),
        "6: peers.pacs.ae_title: 0104 reads differently in YAML 1.1 and 1.2; write 104, or quote"
        ' it: "0104"',
    ),
    "octal-port": (
        ("port: 104", "port: 0104"),
        "6: peers.pacs.port: 0104 reads differently in YAML 1.1 and 1.2; write 104, or quote it:"
        ' "0104"',
    ),
    "hexadecimal-port": (
        ("port: 104", "port: 0x68"),
        "6: peers.pacs.port: 0x68 reads differently in YAML 1.1 and 1.2; write it as a plain"
        ' decimal number, or quote it: "0x68"',
    ),
    "quoted-port": (
        ("port: 104", 'port: "104"'),
        '6: peers.pacs.port: "104" is text; write the number without quotes',
    ),
    "port-too-high": (
        ("port: 104", "port: 104000"),
        "6: peers.pacs.port: input should be less than or equal to 65535",
    ),
    "exponent-as-ae-title": (
        ('"PACS"', "1E5"),
        '6: peers.pacs.ae_title: 100000.0 is not text; quote it: "100000.0"',
    ),
    "bare-date": (
        ("host: pacs", "host: 2026-01-02"),
        '6: peers.pacs.host: 2026-01-02 is a date; quote it: "2026-01-02"',
    ),
    "empty-value": (
        ("data_dir: data", "data_dir:"),
        "3: node.data_dir: is empty; give a value or leave the key out",
    ),
    "duplicate-key": (
        ("  data_dir: data", "  data_dir: data\n  data_dir: other"),
        "4: node.data_dir: given twice, first in line 3",
    ),
    "number-as-key": (
        ("  pacs: {", "  12: {"),
        "6: peers.12: a key is text; quote it",
    ),
    "tag": (
        ("host: pacs", "host: !env PACS"),
        "6: a tag (!) is not allowed; quote the text",
    ),
    "alias": (
        ("kind: [CT]", "kind: *CBCT*"),
        "9: an alias (*) is not allowed; write the value out or quote it",
    ),
    "tab": (
        ("  data_dir: data", "\tdata_dir: data"),
        "3: not YAML: found character '\\t' that cannot start any token; quote texts that hold"
        " : # * & ! % @ ` or a backslash",
    ),
    "long-ae-title": (
        ('"PACS"', '"A_VERY_LONG_TITLE"'),
        "6: peers.pacs.ae_title: an AE title has 1 to 16 characters, this has 17 (PS3.5 6.2)",
    ),
    "backslash-in-ae-title": (
        ('"PACS"', "'PA\\CS'"),
        "6: peers.pacs.ae_title: an AE title holds printable ASCII without a backslash (PS3.5 6.2)",
    ),
    "same-ae-title": (
        ('"PACS"', '"CTSIM1"'),
        "6: peers.pacs.ae_title: 'CTSIM1' is the AE title of peers.ctsim",
    ),
    "host-bits": (
        ("192.0.2.10", "192.0.2.10/24"),
        "5: peers.ctsim.addresses.0: 192.0.2.10/24 has host bits set; write an address or a"
        " network as text, for example 192.0.2.0/24",
    ),
    "open-receiver": (
        (", addresses: [192.0.2.10]", ""),
        "5: peers.ctsim: receive: true needs addresses, for example [192.0.2.10]",
    ),
    "peer-without-port": (
        (", port: 104", ""),
        "6: peers.pacs: host and port go together",
    ),
    "upper-case-name": (
        ("  pacs: {", "  PACS: {"),
        "6: peers.PACS: 'PACS' is no name: lower-case letters, digits, - and _, at most 32"
        " characters",
    ),
    "peer-called-sender": (
        ("  ctsim: {", "  sender: {"),
        "5: peers.sender: 'sender' stands for the peer that sent the series; use another name",
    ),
    "no-destination": (
        ("[pacs]", "[]"),
        "11: routes.0.destinations: needs at least one entry",
    ),
    "text-for-list": (
        ("[pacs]", "pacs"),
        "11: routes.0.destinations: needs a list, for example [a, b]",
    ),
    "destination-that-only-sends": (
        ("[pacs]", "[pacs, ctsim]"),
        "11: routes.0.destinations.1: peers.ctsim has no host and port to send to",
    ),
    "sender-that-only-sends": (
        (
            "{kind: [CT]}\n    pipeline: autocontour\n    destinations: [pacs]",
            '{calling_ae_title: ["CTSIM1"]}\n    pipeline: autocontour\n    destinations: [sender]',
        ),
        "11: routes.0.destinations.0: the sender may be peers.ctsim, which has no host and port to"
        " send to",
    ),
    "empty-match": (
        ("{kind: [CT]}", "{}"),
        "9: routes.0.match: an empty match would take everything; name at least a kind",
    ),
    "unknown-modality": (
        ("{kind: [CT]}", "{modality: [CT, XX]}"),
        "9: routes.0.match.modality.1: 'XX' is not one of CT, MR, PT, RTSTRUCT, RTPLAN, RTDOSE,"
        " RTIMAGE, RTRECORD, REG, SEG, SR, KO, PR, DOC, NM, US, CR, DX, OT",
    ),
    "unknown-calling-title": (
        ("{kind: [CT]}", "{calling_ae_title: [CTSIM]}"),
        "9: routes.0.match.calling_ae_title.0: 'CTSIM' is no peer with `receive: true`; did you"
        " mean 'CTSIM1'?",
    ),
    "unknown-called-title": (
        ("{kind: [CT]}", "{called_ae_title: [RTNODES]}"),
        "9: routes.0.match.called_ae_title.0: 'RTNODES' is not under node.ae_titles; did you mean"
        " 'RTNODE'?",
    ),
    "unknown-keyword": (
        ("{kind: [CT]}", "{keywords: {Manufacturar: {equals: x}}}"),
        "9: routes.0.match.keywords.Manufacturar: not a DICOM keyword; did you mean"
        " 'Manufacturer'?",
    ),
    "identity-keyword": (
        ("{kind: [CT]}", "{keywords: {PatientID: {equals: x}}}"),
        "9: routes.0.match.keywords.PatientID: identifies a patient or a person; match on"
        " something else",
    ),
    "person-name-keyword": (
        ("{kind: [CT]}", "{keywords: {OperatorsName: {equals: x}}}"),
        "9: routes.0.match.keywords.OperatorsName: identifies a patient or a person; match on"
        " something else",
    ),
    "sequence-keyword": (
        ("{kind: [CT]}", "{keywords: {ROIContourSequence: {exists: true}}}"),
        "9: routes.0.match.keywords.ROIContourSequence: is a sequence or binary; only plain values"
        " can be matched",
    ),
    "unknown-operator": (
        ("{kind: [CT]}", "{keywords: {Manufacturer: {contain: x}}}"),
        "9: routes.0.match.keywords.Manufacturer: 'contain' is not one of equals, one_of,"
        " contains, regex, range, exists; did you mean 'contains'?",
    ),
    "no-operator": (
        ("{kind: [CT]}", "{keywords: {Manufacturer: x}}"),
        "9: routes.0.match.keywords.Manufacturer: needs one of equals, one_of, contains, regex,"
        ' range, exists, for example {equals: "x"}',
    ),
    "two-operators": (
        ("{kind: [CT]}", "{keywords: {Manufacturer: {contains: x, exists: true}}}"),
        "9: routes.0.match.keywords.Manufacturer: one operator for one keyword; use a"
        " second rule or a regex",
    ),
    "range-upside-down": (
        ("{kind: [CT]}", "{keywords: {KVP: {range: [140, 100]}}}"),
        "9: routes.0.match.keywords.KVP.range: the lowest number comes first",
    ),
    "bad-regex": (
        ("{kind: [CT]}", '{keywords: {StationName: {regex: "(a"}}}'),
        "9: routes.0.match.keywords.StationName.regex: not a regular expression: missing ),"
        " unterminated subpattern at position 0",
    ),
    "runaway-regex": (
        ("{kind: [CT]}", '{keywords: {StationName: {regex: "(a+)+$"}}}'),
        "9: routes.0.match.keywords.StationName.regex: a pattern repeats characters or [classes],"
        " never a (group)",
    ),
    "unknown-setting": (
        ("    pipeline: autocontour", "    pipeline: autocontour\n    settings: {no_such: 1}"),
        "11: routes.0.settings.no_such: not a known key",
    ),
    "unknown-limits": (
        ("routes:", "pipelines: {limits: {autocontours: {timeout_s: 9}}}\nroutes:"),
        "7: pipelines.limits.autocontours: 'autocontours' is not one of autocontour,"
        " synthetic_ct, dose_radiomics, image_radiomics, image_quality;"
        " did you mean 'autocontour'?",
    ),
    "move-without-target": (
        ("routes:", "hot_folders: [{path: drop, after: move}]\nroutes:"),
        "7: hot_folders.0: after: move and done_dir go together",
    ),
    "other-database": (
        ("  data_dir: data", "  data_dir: data\n  database_url: mysql://db/rtnode"),
        "4: node.database_url: begins with sqlite:/// or postgresql://, for example"
        " postgresql://rtnode@db.example.org/rtnode",
    ),
    "password-in-the-open": (
        ("  data_dir: data", "  data_dir: data\n  database_url: postgresql://a:b@db/rtnode"),
        "4: node.database_url: holds a password; put it into a file and name that with"
        " ?password_file=",
    ),
    "not-a-number": (
        ("routes:", "storage: {min_free_gb: .nan}\nroutes:"),
        "7: storage.min_free_gb: .nan reads differently in YAML 1.1 and 1.2; write it as a plain"
        ' decimal number, or quote it: ".nan"',
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_configuration_is_answered_with_line_place_and_advice(
    tmp_path: Path, case: tuple[tuple[str, str], str]
) -> None:
    (old, new), expected = case

    assert f"config.yaml:{expected}" in problems(tmp_path, changed(old, new))


def test_two_routes_need_two_names(tmp_path: Path) -> None:
    second = BASE[BASE.index("  - name") :]

    found = problems(tmp_path, BASE + second)

    assert found == ["config.yaml:12: routes.1.name: another route is called 'contours'"]


def test_a_text_that_looks_like_no_in_yaml_1_1_stays_an_ae_title(tmp_path: Path) -> None:
    config = load(written(tmp_path, changed('"RTNODE"', "NO")))

    assert config.node.ae_titles == ("NO",)


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())

    assert load(path).node.ae_titles == ("RTNODE",)


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"node:\n  # caf\xe9\n")

    with pytest.raises(ConfigError, match=r"config.yaml:2: not UTF-8 text"):
        load(path)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n"], ids=["empty", "comments"])
def test_an_empty_file_lacks_the_node(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == ["config.yaml:1: node: is missing"]


@pytest.mark.parametrize("text", ["- a\n", "text\n", "3\n"], ids=["list", "text", "number"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text)

    assert found.startswith("config.yaml:1: needs keys with values below it")


def test_anybody_may_send_only_when_the_configuration_says_so(tmp_path: Path) -> None:
    text = changed("{kind: [CT]}", "{calling_ae_title: [ANY]}")

    config = load(written(tmp_path, "receive: {unknown_peers: accept}\n" + text))

    assert config.routes[0].match.calling_ae_title == ("ANY",)


def test_a_peer_is_found_by_its_ae_title(tmp_path: Path) -> None:
    config = load(written(tmp_path, BASE))

    assert config.peer_of("PACS") == ("pacs", config.peers["pacs"])
    assert config.peer_of("NOBODY") is None


def test_the_index_is_told_every_keyword_that_a_rule_asks_for(tmp_path: Path) -> None:
    text = changed("{kind: [CT]}", "{keywords: {KVP: {range: [80, 140]}}}")

    keywords = load(written(tmp_path, text)).matched_keywords()

    assert {"KVP", "Manufacturer", "ManufacturerModelName"} <= keywords


def test_limits_of_a_pipeline_that_is_not_named_are_the_defaults(tmp_path: Path) -> None:
    text = "pipelines: {limits: {autocontour: {timeout_s: 60, memory_mb: 512}}}\n" + BASE

    limits = load(written(tmp_path, text)).pipelines

    assert limits.limits_for("autocontour").timeout_s == 60
    assert limits.limits_for("synthetic_ct").timeout_s == 1800


def test_a_condition_becomes_the_model_of_its_operator(tmp_path: Path) -> None:
    text = changed("{kind: [CT]}", "{keywords: {Manufacturer: {contains: Varian}}}")

    keywords = load(written(tmp_path, text)).routes[0].match.keywords

    assert keywords["Manufacturer"] == Contains(contains="Varian")


def test_every_setting_of_the_configuration_has_a_description() -> None:
    """An undescribed setting would be missing in the sample."""
    assert [name for name, field in Config.model_fields.items() if not field.description] == []
