"""Templates: what they refuse, closed-form derived structures, and what is written of them."""

import copy

import numpy as np
import pydicom
import pytest
from pydantic import ValidationError

from models.phantom import thorax
from pipelines.api import Provenance
from pipelines.autocontour.assemble import assemble
from pipelines.autocontour.checks import Verdict
from pipelines.autocontour.derive import derive, largest, sharpened
from pipelines.autocontour.names import Organ
from pipelines.autocontour.settings import AutocontourSettings
from pipelines.autocontour.template import ClassicalName, LearnedName, TemplateEntry
from pipelines.dicom.rtstruct_check import check_structure_set
from pipelines.dicom.rtstruct_writer import write_structure_set
from pipelines.geometry.expressions import parse
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import work_image
from tests import factories

SIZE = 90.0
RADIUS = 20.0


def ball(radius):
    return 4 / 3 * np.pi * radius**3


def lens(one, other, distance):
    """Volume that two balls share."""
    rest = one + other - distance
    poly = distance**2 + 2 * distance * (one + other) - 3 * (one - other) ** 2
    return np.pi * rest**2 * poly / (12 * distance)


def grid(spacing, work=2.0):
    shape = tuple(int(SIZE / s) for s in spacing)
    geometry = StackGeometry.regular(shape=shape, spacing=spacing)
    return work_image(np.zeros(shape, np.float32), geometry, work)


def sphere(image, spacing, radius, shift=0.0):
    """A field whose 0.5 level is a sphere that lies between the voxels."""
    z, y, x = (c * s - SIZE / 2 for c, s in zip(image.centers, spacing, strict=True))
    depth = radius - np.sqrt(
        (z - 0.3)[:, None, None] ** 2 + (y + 0.4)[None, :, None] ** 2 + (x - shift) ** 2
    )
    return np.clip(0.5 + depth / max(image.spacing), 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    "spacing", [(2.0, 2.0, 2.0), (3.0, 1.0, 1.0)], ids=["work-grid", "CT-finer-than-work-grid"]
)
@pytest.mark.parametrize(
    ("text", "volume", "limit"),
    [
        ("A", ball(RADIUS), 0.01),
        ("A + 5mm", ball(25.0), 0.01),
        ("A - 3mm", ball(17.0), 0.01),
        ("(A + 5mm) - A", ball(25.0) - ball(RADIUS), 0.02),
        ("A | B", ball(RADIUS) + ball(15.0) - lens(RADIUS, 15.0, 12.0), 0.01),
        ("A & B", lens(RADIUS, 15.0, 12.0), 0.02),
        ("A - B", ball(RADIUS) - lens(RADIUS, 15.0, 12.0), 0.01),
        ("(A | B) + 3mm", ball(23.0) + ball(18.0) - lens(23.0, 18.0, 12.0), 0.01),
    ],
)
def test_derived_spheres_have_the_volume_of_the_formula(text, volume, limit, spacing):
    image = grid(spacing)
    found = {"A": sphere(image, spacing, RADIUS), "B": sphere(image, spacing, 15.0, 12.0)}

    values, _ = image.fine(derive(parse(text), found.__getitem__, image))
    written = sharpened(values, image, spacing[2])

    voxels = np.count_nonzero(written > 0.5) * np.prod(spacing)
    assert voxels == pytest.approx(volume, rel=limit)


def test_the_end_of_the_scan_is_no_surface():
    """A body that leaves the scan is cropped at its skin, not at the first image."""
    image = grid((3.0, 3.0, 3.0), 3.0)
    body = np.zeros(image.hu.shape, np.float32)
    body[:, 5:25, 5:25] = 1

    cropped = derive(parse("External - 6mm"), lambda _: body, image) >= 0.5

    assert (cropped.sum(axis=(1, 2)) == 16 * 16).all()


def test_the_largest_part_is_kept_and_no_rim_of_the_others():
    field = np.zeros((20, 20, 20), np.float32)
    field[2:10, 2:10, 2:10] = 1
    field[14:17, 14:17, 14:17] = 1
    field[13, 14:17, 14:17] = 0.3

    kept = largest(field)

    assert (kept[:12] == field[:12]).all()
    assert not kept[13:].any()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ([{"structure": "Lungs"}, {"structure": "Bones", "name": "LUNGS"}], "given twice"),
        ([{"expression": "Lungs - Bones"}], "needs a name"),
        ([{"expression": "Lungs - Femurs", "name": "A"}], "'Femurs' is neither"),
        ([{"expression": "B + 3mm", "name": "A"}, {"structure": "Bones", "name": "B"}], "'B' is"),
        ([{"expression": "Lungs & D>=20Gy", "name": "A"}], "no dose"),
        ([{"expression": "/lung/i", "name": "A"}], "not patterns"),
        ([{"expression": "not Lungs", "name": "A"}], "has no bounds"),
        ([{"structure": "Lungs", "name": "A23456789012345678"}], "at most 16"),
        ([{"structure": "Lungs", "name": "A234567890123456"}], "15 characters"),
        ([{"structure": "Larynx"}], "needs a model_pack"),
        ([{"structure": "Lungs", "expression": "Lungs", "name": "A"}], "either"),
        ([{"structure": "Lungs", "type": "LUNG"}], "Input should be"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_the_reason(template, words):
    with pytest.raises(ValidationError, match=words):
        AutocontourSettings.model_validate({"template": template}, strict=False)


def test_the_names_of_the_template_are_the_structures_of_the_pipeline():
    known = {*ClassicalName.__args__, *LearnedName.__args__}

    assert known == {organ.value for organ in Organ}


def test_the_list_of_structures_is_the_short_form_of_a_template():
    settings = AutocontourSettings(structures=("Lungs", "External"))

    assert [e.structure for e in settings.entries(())] == ["External", "Lungs"]


def passed(organ, *, write=True):
    return Verdict(organ=organ, write=write, cut=False, findings=())


def made(template, surfaces, image, *, refused=()):
    verdicts = {o: passed(o, write=o not in refused) for o in surfaces}
    return assemble([TemplateEntry(**e) for e in template], surfaces, verdicts, image, 2.0)


def test_order_names_colors_types_and_numbers_are_those_of_the_template():
    image = grid((2.0, 2.0, 2.0))
    surfaces = {
        Organ.LUNGS: sphere(image, (2, 2, 2), 20),
        Organ.BONES: sphere(image, (2, 2, 2), 15, 12),
    }

    found = made(
        [
            {"structure": "Bones", "name": "Skeleton", "color": "#102030", "display_name": "骨"},
            {"expression": "Lungs - skeleton", "name": "Lungs-Bones", "type": "AVOIDANCE"},
            {"expression": "'Lungs-Bones' + 3mm", "name": "Ring"},
            {"structure": "Lungs"},
        ],
        surfaces,
        image,
    ).structures

    assert [s.name for s in found] == ["Skeleton", "Lungs-Bones", "Ring", "Lungs"]
    assert [s.number for s in found] == [5, 101, 102, 4]
    assert [s.interpreted_type for s in found] == ["ORGAN", "AVOIDANCE", "CONTROL", "ORGAN"]
    assert found[0].color == (16, 32, 48)
    assert found[0].label == "骨"
    assert found[1].description == "derived: Lungs - skeleton"


def test_what_is_missing_takes_along_what_is_derived_from_it_and_nothing_else():
    image = grid((2.0, 2.0, 2.0))
    surfaces = {Organ.LUNGS: sphere(image, (2, 2, 2), 20), Organ.BONES: sphere(image, (2, 2, 2), 9)}

    result = made(
        [
            {"structure": "Lungs"},
            {"expression": "SpinalCanal + 5mm", "name": "PRV"},
            {"expression": "PRV + 5mm", "name": "PRV2"},
            {"expression": "Lungs - Bones", "name": "Rest"},
            {"expression": "Lungs - 40mm", "name": "Nothing"},
            {"expression": "Lungs + 2mm", "name": "Lungs_02"},
        ],
        surfaces,
        image,
        refused={Organ.BONES},
    )

    assert [s.name for s in result.structures] == ["Lungs", "Lungs_02"]
    assert [(f.code, f.roi) for f in result.findings] == [
        ("derived-not-made", "PRV"), ("derived-not-made", "PRV2"), ("derived-not-made", "Rest"),
        ("roi-empty", "Nothing"),
    ]  # fmt: skip
    assert "needs SpinalCanal" in result.findings[0].message


def test_a_derived_structure_comes_back_from_the_file_and_says_how_it_was_made(tmp_path):
    spacing = (3.0, 1.2, 1.2)
    datasets = factories.ct_series()
    shape = tuple(int(SIZE / s) for s in spacing)
    geometry = StackGeometry.regular(shape=shape, spacing=spacing)
    headers = [copy.deepcopy(datasets[0]) for _ in range(shape[0])]
    for k, header in enumerate(headers):
        header.SOPInstanceUID = f"1.2.3.{k}"
    image = work_image(np.zeros(shape, np.float32), geometry, 2.0)
    surfaces = {Organ.SPINAL_CANAL: sphere(image, spacing, 20)}
    structures = made(
        [
            {"structure": "SpinalCanal", "display_name": "脊柱管"},
            {"expression": "(SpinalCanal + 7.5mm) - (SpinalCanal + 2.5mm)", "name": "Ring"},
        ],
        surfaces,
        image,
    ).structures
    provenance = Provenance(pipeline="autocontour", version="1", settings_sha256="0", sources=())
    path = tmp_path / "rs.dcm"

    write_structure_set(structures, headers, geometry, provenance, path)

    trips = check_structure_set(path, structures, headers, geometry)
    assert min(trip.dice for trip in trips) >= 0.999
    assert trips[1].volume_ml == pytest.approx((ball(27.5) - ball(22.5)) / 1000, rel=0.02)
    ds = pydicom.dcmread(path)
    described = ds.StructureSetROISequence[1].ROIDescription
    assert described.startswith("derived: (SpinalCanal + 7.5mm) - (SpinalCanal + 2.5mm)")
    assert ds.RTROIObservationsSequence[0].ROIObservationLabel == "脊柱管"
    assert "ROIObservationLabel" not in ds.RTROIObservationsSequence[1]


def test_margins_of_the_procedural_patients_canal_enclose_it():
    patient = thorax((30, 72, 96), (4.0, 4.0, 4.0), 1)
    geometry = StackGeometry.regular(shape=patient.hu.shape, spacing=(4.0, 4.0, 4.0))
    image = work_image(patient.hu, geometry, 4.0)
    canal = patient.labels["SpinalCanal"]

    grown = derive(parse("A + 5mm"), lambda _: canal.astype(np.float32), image) >= 0.5

    assert not (canal & ~grown).any()
    assert grown.any(axis=(1, 2)).all()
