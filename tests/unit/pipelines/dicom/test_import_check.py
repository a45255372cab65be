"""Each rule of the import profiles finds the object that was broken for it, and no other."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from pipelines.dicom.header import save
from pipelines.dicom.import_check import points_of, shorter
from pipelines.dicom.import_prepare import judge
from pipelines.dicom.import_profiles import (
    PROFILES,
    STANDARD_RULES,
    Action,
    Basis,
    TpsProfile,
)
from pipelines.dicom.read import tolerant
from tests import factories

ECLIPSE = PROFILES[TpsProfile.ECLIPSE]
SQUARE = np.array([[0, 0, 0], [40, 0, 0], [40, 40, 0], [0, 40, 0]], np.float64)


def broken(ds: Dataset | list[Dataset], folder: Path, profile=ECLIPSE) -> dict[str, bool]:
    """Return rule -> whether it can be repaired, of everything that is wrong with objects."""
    paths = []
    for number, one in enumerate(ds if isinstance(ds, list) else [ds]):
        paths.append(folder / f"{number}.dcm")
        with tolerant():
            save(one, paths[-1])
    return {p.rule: p.repairable for p in judge(paths, profile)}


@cache
def sound() -> Dataset:
    return factories.rtstruct(names=("GTV", "Lung_L", "External"), grid=factories.ct_grid(6))


def structure_set() -> Dataset:
    return copy.deepcopy(sound())


def contour(ds: Dataset, roi: int = 0, index: int = 0) -> Dataset:
    return ds.ROIContourSequence[roi].ContourSequence[index]


def draw(item: Dataset, points, *, kind: str = "CLOSED_PLANAR") -> None:
    values = np.asarray(points, np.float64)
    value = "\\".join(f"{v:.2f}" for v in values.ravel())
    item[Tag("ContourData")] = DataElement(0x30060050, "DS", value, already_converted=True)
    item.NumberOfContourPoints, item.ContourGeometricType = len(values), kind


def add_contour(ds: Dataset, points, roi: int = 0) -> None:
    extra = Dataset()
    extra.ContourImageSequence = contour(ds, roi).ContourImageSequence
    draw(extra, points)
    ds.ROIContourSequence[roi].ContourSequence.append(extra)


def raw(ds: Dataset, keyword: str, vr: str, value: str) -> None:
    ds[Tag(keyword)] = DataElement(Tag(keyword), vr, value, already_converted=True)


def at_height(ds: Dataset, shape, z: float = 0.0):
    own = points_of(contour(ds))[0, 2]
    return np.asarray(shape, np.float64) * [1, 1, 0] + [0, 0, own + z]


def long_name(ds: Dataset) -> None:
    ds.StructureSetROISequence[0].ROIName = "PTV_High_Risk_70Gy_L"


def long_names_that_meet(ds: Dataset) -> None:
    ds.StructureSetROISequence[0].ROIName = "PTV_High_Risk_Boost_A_L"
    ds.StructureSetROISequence[1].ROIName = "PTV_High_Risk_Boost_B_L"


def long_label(ds: Dataset) -> None:
    raw(ds, "StructureSetLabel", "SH", "AUTO CONTOURS OF TODAY")


def long_accession(ds: Dataset) -> None:
    raw(ds, "AccessionNumber", "SH", "A" * 17)


def long_decimal_of_zeros(ds: Dataset) -> None:
    points = at_height(ds, SQUARE)
    value = "\\".join(f"{v:.17f}" for v in points.ravel())
    raw(contour(ds), "ContourData", "DS", value)
    contour(ds).NumberOfContourPoints = len(points)


def long_decimal_with_digits(ds: Dataset) -> None:
    raw(contour(ds), "ContourData", "DS", "0.12345678901234567\\0\\0\\9\\0\\0\\9\\9\\0")
    contour(ds).NumberOfContourPoints = 3


def long_description(ds: Dataset) -> None:
    raw(ds, "SeriesDescription", "LO", "x" * 65)


def twins(ds: Dataset) -> None:
    ds.StructureSetROISequence[1].ROIName = "gtv"


def japanese_name(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StructureSetROISequence[0].ROIName = "右肺"


def undefined_charset(ds: Dataset) -> None:
    raw(ds, "SpecificCharacterSet", "CS", "ISO_IR 999")


def stray_frame(ds: Dataset) -> None:
    ds.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "2.25.999"


def foreign_image(ds: Dataset) -> None:
    contour(ds).ContourImageSequence[0].ReferencedSOPInstanceUID = "2.25.998"


def wrong_count(ds: Dataset) -> None:
    contour(ds).NumberOfContourPoints = 99


def no_triplets(ds: Dataset) -> None:
    raw(contour(ds), "ContourData", "DS", "1\\2\\3\\4")


def open_type(ds: Dataset) -> None:
    contour(ds).ContourGeometricType = "OPEN_NONPLANAR"


def many_points(ds: Dataset) -> None:
    turn = np.linspace(0, 2 * np.pi, 1200, endpoint=False)
    circle = np.stack([50 * np.cos(turn), 50 * np.sin(turn), 0 * turn], axis=1)
    draw(contour(ds), at_height(ds, circle))


def two_points(ds: Dataset) -> None:
    draw(contour(ds), at_height(ds, SQUARE[:2]))


def a_line(ds: Dataset) -> None:
    draw(contour(ds), at_height(ds, [[0, 0, 0], [10, 0, 0], [20, 0, 0]]))


def a_speck(ds: Dataset) -> None:
    draw(contour(ds), at_height(ds, SQUARE * 0.02))


def a_bent_one(ds: Dataset) -> None:
    points = at_height(ds, SQUARE)
    points[0, 2] += 1.0
    draw(contour(ds), points)


def nested(ds: Dataset) -> None:
    draw(contour(ds), at_height(ds, SQUARE))
    add_contour(ds, at_height(ds, SQUARE * 0.5 + 10))


def xor(ds: Dataset) -> None:
    contour(ds).ContourGeometricType = "CLOSEDPLANAR_XOR"


def empty(ds: Dataset) -> None:
    ds.ROIContourSequence[1].ContourSequence = Items()


def two_bodies(ds: Dataset) -> None:
    ds.RTROIObservationsSequence[0].RTROIInterpretedType = "EXTERNAL"


def approved(ds: Dataset) -> None:
    ds.ApprovalStatus = "APPROVED"


def nobody(ds: Dataset) -> None:
    del ds.PatientID


def no_frame_of_reference(ds: Dataset) -> None:
    del ds.ReferencedFrameOfReferenceSequence


CASES: tuple[tuple[Callable[[Dataset], None], dict[str, bool]], ...] = (
    (long_name, {"name-length": True}),
    (long_names_that_meet, {"name-length": False}),
    (long_label, {"label-length": True}),
    (long_accession, {"label-length": False}),
    (long_decimal_of_zeros, {"decimal-length": True}),
    (long_decimal_with_digits, {"decimal-length": False}),
    (long_description, {"text-length": False}),
    (twins, {"name-unique": False}),
    (japanese_name, {"name-ascii": False}),
    (undefined_charset, {"character-set": False}),
    (stray_frame, {"frame-of-reference": False}),
    (foreign_image, {"image-references": False}),
    (wrong_count, {"contour-data": False}),
    (no_triplets, {"contour-data": False}),
    (open_type, {"contour-type": False}),
    (many_points, {"contour-points": False}),
    (two_points, {"contour-degenerate": False}),
    (a_line, {"contour-degenerate": False}),
    (a_speck, {"contour-tiny": False}),
    (a_bent_one, {"contour-planar": False}),
    (nested, {"holes": False}),
    (xor, {"holes": False}),
    (empty, {"empty-roi": True}),
    (two_bodies, {"one-external": False}),
    (approved, {"unapproved": False}),
    (nobody, {"required": False}),
)


def test_a_sound_structure_set_breaks_no_rule_of_any_profile(tmp_path) -> None:
    for profile in PROFILES.values():
        assert broken(structure_set(), tmp_path, profile) == {}


@pytest.mark.parametrize(("spoil", "expected"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_broken_structure_set_is_found_by_its_rule_alone(tmp_path, spoil, expected) -> None:
    ds = structure_set()
    spoil(ds)

    assert broken(ds, tmp_path) == expected


def test_a_structure_set_without_frames_is_told_by_every_rule_that_needs_them(tmp_path) -> None:
    ds = structure_set()
    no_frame_of_reference(ds)

    found = broken(ds, tmp_path)
    assert found == dict.fromkeys(("required", "frame-of-reference", "image-references"), False)


def test_every_rule_has_a_broken_object_in_these_tests() -> None:
    seen = {rule for _, expected in CASES for rule in expected}

    assert seen | {"transfer-syntax", "slice-spacing"} == STANDARD_RULES.keys()


def test_a_text_that_does_not_fit_its_character_set_is_found(tmp_path) -> None:
    ds = structure_set()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SeriesDescription = "SPOILED"
    save(ds, tmp_path / "0.dcm")
    stored = (tmp_path / "0.dcm").read_bytes().replace(b"SPOILED", b"SPO\xff\xfeED")
    (tmp_path / "0.dcm").write_bytes(stored)

    assert [p.rule for p in judge([tmp_path / "0.dcm"], ECLIPSE)] == ["character-set"]


def test_a_compressed_object_is_found(tmp_path) -> None:
    image = factories.ct_series()[0]
    save(image, tmp_path / "0.dcm")
    stored = (tmp_path / "0.dcm").read_bytes()
    explicit, jpeg = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"
    assert stored.count(explicit) == 1
    (tmp_path / "0.dcm").write_bytes(stored.replace(explicit, jpeg))

    assert "transfer-syntax" in {p.rule for p in judge([tmp_path / "0.dcm"], ECLIPSE)}


def test_a_sound_series_of_images_passes_and_a_gap_a_twin_and_a_second_frame_do_not(
    tmp_path,
) -> None:
    sound = factories.ct_series()
    gap = factories.without(factories.ct_series(), 5)
    twin = factories.ct_series()
    twin[3].ImagePositionPatient = twin[4].ImagePositionPatient
    frames = factories.ct_series()
    frames[0].FrameOfReferenceUID = "2.25.777"

    assert broken(sound, tmp_path) == {}
    assert broken(gap, tmp_path) == {"slice-spacing": False}
    assert broken(twin, tmp_path) == {"slice-spacing": False}
    assert broken(frames, tmp_path) == {"frame-of-reference": False}


def test_a_message_names_no_patient(tmp_path) -> None:
    ds = structure_set()
    ds.PatientName, ds.PatientID = "CANARY^NAME", "CANARY-ID"
    for spoil, _ in CASES[:8]:
        spoil(ds)
    save(ds, tmp_path / "0.dcm")

    told = " ".join(p.message for p in judge([tmp_path / "0.dcm"], ECLIPSE))
    assert told
    assert "CANARY" not in told


@pytest.mark.parametrize(
    ("written", "short"),
    [
        (b"1.50000000000000000", b"1.5"),
        (b"-000000000000012.25", b"-12.25"),
        (b"+0.00000000000000000", b"0"),
        (b" 7.0000000000000000 ", b"7"),
        (b"0.12345678901234567", None),
        (b"1.2345678901234567E5", None),
        (b"not a number at all", None),
    ],
)
def test_a_number_is_only_ever_written_shorter_digit_for_digit(written, short) -> None:
    assert shorter(written, 16) == short


def test_a_profile_says_of_each_rule_how_well_it_is_known() -> None:
    for profile in PROFILES.values():
        for rule in profile.rules.values():
            assert rule.source
            assert (rule.action is Action.FIX) <= rule.fixable
    reported = {
        (system, name)
        for system, profile in PROFILES.items()
        for name, rule in profile.changes.items()
        if rule.basis is Basis.REPORTED
    }
    assert reported == {
        (TpsProfile.ECLIPSE, "decimal-length"),
        (TpsProfile.ECLIPSE, "label-length"),
        (TpsProfile.RAYSTATION, "contour-planar"),
    }


def test_a_site_changes_words_and_limits_and_hears_what_makes_no_sense() -> None:
    own = ECLIPSE.adapted({"holes": Action.WARN}, {"contour-points": 4000})

    assert own.rules["holes"].action is Action.WARN
    assert own.rules["contour-points"].limit == 4000
    assert own.rules["name-length"] == ECLIPSE.rules["name-length"]
    with pytest.raises(ValueError, match="'nonsense' is no rule"):
        ECLIPSE.adapted({"nonsense": Action.WARN}, {})
    with pytest.raises(ValueError, match="cannot be fixed"):
        ECLIPSE.adapted({"holes": Action.FIX}, {})
    with pytest.raises(ValueError, match="has no limit"):
        ECLIPSE.adapted({}, {"holes": 3})


def test_the_page_about_delivery_tells_every_rule_as_it_is() -> None:
    page = (Path(__file__).parents[4] / "docs" / "delivery.md").read_text()
    named = PROFILES[TpsProfile.MONACO].rules

    for name, rule in STANDARD_RULES.items():
        (line,) = [row for row in page.splitlines() if row.startswith(f"| `{name}` |")]
        assert rule.demand.format(limit=f"{rule.limit or 0:g}") in line
        assert f"| {rule.action.value} | {named[name].action.value} |" in line
        assert f"| {named[name].basis.value}: {named[name].source} |" in line
    limits = {n: r.limit for n, r in named.items() if r.limit != STANDARD_RULES[n].limit}
    assert limits == {"name-length": 16}
