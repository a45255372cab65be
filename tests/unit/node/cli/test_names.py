"""``rtnode names``: ROI names against TG-263, and Eclipse templates."""

import json

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from node.cli.main import main
from pipelines.autocontour.eclipse_template import MAX_BYTES
from pipelines.autocontour.settings import AutocontourSettings
from tests import factories

TEMPLATE = """<?xml version="1.0" encoding="utf-8"?>
<StructureTemplate Version="1.1">
  <Preview ID="Thorax" Type="Structure" ApprovalStatus="Unapproved"/>
  <Structures>
    <Structure ID="BODY" Name="Body">
      <Identification><VolumeID/><VolumeCode>BODY</VolumeCode><VolumeType>BODY</VolumeType>
      </Identification>
      <ColorAndStyle>RGB 0 255 16</ColorAndStyle>
    </Structure>
    <Structure ID="Spinal Canal" Name="">
      <Identification><VolumeType>Avoidance</VolumeType></Identification>
      <ColorAndStyle>Yellow</ColorAndStyle>
    </Structure>
    <Structure ID="Lung Left" Name="Lung"><Identification><VolumeType>Organ</VolumeType>
    </Identification></Structure>
    <Structure ID="Heart" Name="Heart"/>
  </Structures>
</StructureTemplate>
"""


def invoke(*arguments):
    return CliRunner().invoke(main, ["names", *map(str, arguments)])


@pytest.fixture
def structure_set(tmp_path):
    ds = factories.rtstruct()
    path = tmp_path / "rs.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path, [str(item.ROIName) for item in ds.StructureSetROISequence]


def test_every_name_of_a_structure_set_is_judged(structure_set):
    path, names = structure_set

    told = json.loads(invoke("check", path, "--json").stdout)

    assert [one["name"] for one in told] == names


def test_the_exit_code_tells_whether_a_name_should_change(structure_set):
    path, _ = structure_set
    ds = factories.rtstruct()
    items = list(ds.StructureSetROISequence)

    for names, code in ((("External", "Lung_L"), 0), (("External", "Lung left"), 1)):
        for item, name in zip(items, names, strict=False):
            item.ROIName = name
        ds.StructureSetROISequence = items[:2]
        ds.save_as(path, enforce_file_format=True)
        result = invoke("check", path)
        assert result.exit_code == code, result.output
    assert "Lung_L" in result.output


def test_a_file_that_is_no_structure_set_is_refused(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(b"no DICOM")

    assert invoke("check", path).exit_code == 1


def test_an_eclipse_template_becomes_a_template_that_the_pipeline_takes(tmp_path):
    path = tmp_path / "thorax.xml"
    path.write_text(TEMPLATE)

    result = invoke("import-template", path)

    assert result.exit_code == 0
    tree = YAML(typ="safe").load(result.output)
    settings = AutocontourSettings.model_validate_json(json.dumps(tree))
    assert [(e.structure, e.roi_name, e.type, e.color) for e in settings.template] == [
        ("External", "BODY", "EXTERNAL", "#00ff10"),
        ("SpinalCanal", "Spinal Canal", "AVOIDANCE", None),
        ("Lung_L", "Lung Left", "ORGAN", None),
    ]
    assert '# with a model_pack that finds it: - {structure: "Heart"}' in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "document type or an entity"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type or an entity"),
        ("<a>" * 40 + "</a>" * 40, "nested deeper"),
        ("<a><b></a>", "no XML"),
        ("<a/>", "no Structure"),
        ("<a>" + " " * MAX_BYTES + "</a>", "larger than"),
        ('<a><Structure ID="Heart"/></a>', "with a model_pack that finds it"),
        ('<a><Structure ID="Flux"/></a>', "not found by this node"),
    ],
    ids=["entity", "external", "deep", "broken", "empty", "large", "learned", "nothing-known"],
)
def test_xml_that_is_dangerous_or_no_template_is_refused(text, words, tmp_path):
    path = tmp_path / "bad.xml"
    path.write_text(text)

    result = invoke("import-template", path)

    assert result.exit_code == 1
    assert words in result.output
