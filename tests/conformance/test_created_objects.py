"""The objects that leave the node have the attributes that the conformance statement lists."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.tag import Tag

from demo import dicom
from demo.grid import Grid
from models.phantom import thorax
from node.cli.conformance.codes import SCHEMES
from node.cli.conformance.codes import listed as known_codes
from node.cli.conformance.objects import CREATED, Origin, Presence
from pipelines.api import Role
from pipelines.autocontour.pipeline import run as run_autocontour
from pipelines.dose_radiomics.pipeline import run as run_dose
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.image_radiomics.pipeline import run as run_image
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.radiomics.filter_settings import LaplacianOfGaussian
from tests import factories
from tests.conformance.test_autocontour_result import request as contour_request
from tests.conformance.test_autocontour_result import saved
from tests.unit.pipelines.dose_radiomics import support as dose_kit
from tests.unit.pipelines.image_quality import quality_support
from tests.unit.pipelines.image_radiomics import image_kit
from tests.unit.pipelines.synthetic_ct import sct_support

SPACING = (5.0, 5.0, 5.0)
HEIGHTS = np.arange(-9, 10, 2.0)


def contour_objects(folder: Path) -> list[Path]:
    """Structure set, masks and page of a phantom with one derived structure."""
    patient = thorax((34, 60, 80), SPACING, 2, center=(0.0, 0.0, 18.0))
    grid = Grid(shape=patient.hu.shape, spacing=SPACING, origin=patient.origin)
    ct = saved(dicom.ct_series(factories.CASE, patient.hu, grid), folder / "ct")
    template = (
        {"structure": "External"},
        {"structure": "SpinalCanal", "name": "Canal", "display_name": "脊柱管"},
        {"expression": "Canal + 5mm", "name": "Canal_PRV05", "type": "AVOIDANCE"},
    )
    done = run_autocontour(
        contour_request(
            ct, folder / "out", template=template, work_grid_mm=5.0, segmentation=True,
            report_pdf=True, report_image=True,
        )
    )  # fmt: skip
    return [o.path for o in done.objects]


def dose_objects(folder: Path) -> list[Path]:
    """Every output of dose radiomics, with target, plan and a difference of structures."""
    shapes = [
        ("PTV", "PTV", dose_kit.cylinder(10, HEIGHTS)),
        ("Lung_L", "ORGAN", dose_kit.cylinder(6, HEIGHTS, x=-20)),
    ]
    rs = dose_kit.structure_set(shapes)
    rp = dose_kit.plan(rs)
    rd = dose_kit.names_plan(dose_kit.dose(dose_kit.linear_z, bits=16, scaling=1e-3), rp)
    files = [
        (Role.RTDOSE, dose_kit.save(rd, folder / "rd.dcm")),
        (Role.RTSTRUCT, dose_kit.save(rs, folder / "rs.dcm")),
        (Role.RTPLAN, dose_kit.save(rp, folder / "rp.dcm")),
    ]
    settings = DoseRadiomicsSettings(
        derived=("Lung_L - PTV",),
        dvh_object=True,
        segmentation=True,
        report_pdf=True,
        report_image=True,
    )
    return [o.path for o in run_dose(dose_kit.request(folder, files, settings)).objects]


def image_objects(folder: Path) -> list[Path]:
    """Return the report on a cylinder in a CT, with one response map."""
    images = image_kit.series(
        lambda points: np.where(abs(points[..., 1]) < 20, points[..., 0] * 2.0, -900.0)
    )
    rs = dose_kit.structure_set([("GTV", "GTV", dose_kit.cylinder(9, np.arange(-9, 10, 3.0)))])
    settings = ImageRadiomicsSettings(
        rois=("*",), filters=(LaplacianOfGaussian(kind="log", sigma_mm=3.0),)
    )
    done = run_image(image_kit.request(folder / "case", images, rs, settings))
    return [o.path for o in done.objects]


def sct_objects(folder: Path) -> list[Path]:
    """Return a synthetic CT with the planning contours, their deformation and the page."""
    objects = {
        Role.CBCT: sct_support.cbct(),
        Role.PLANNING_CT: sct_support.planning_ct(),
        Role.REG: [sct_support.registration()],
        Role.RTSTRUCT: [sct_support.structures()],
    }
    done = sct_support.run_on(
        folder, objects, method="histmatch", contours="deformable", deformation_object=True,
        report_pdf=True, report_image=True,
    )  # fmt: skip
    return [o.path for o in done.objects]


def quality_objects(folder: Path) -> list[Path]:
    """Return thin slices of a CT."""
    done = quality_support.run_on(
        folder, quality_support.series(), task="super_resolution", slice_mm=2.0
    )
    return [o.path for o in done.objects]


def make(folder: Path) -> dict[str, list[Path]]:
    """Return every created object by its modality."""
    found: dict[str, list[Path]] = {}
    for maker in (contour_objects, dose_objects, image_objects, sct_objects, quality_objects):
        below = folder / maker.__name__
        below.mkdir()
        for path in maker(below):
            modality = str(pydicom.dcmread(path, stop_before_pixels=True).Modality)
            found.setdefault(modality, []).append(path)
    return found


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[pydicom.Dataset]]:
    made = make(tmp_path_factory.mktemp("created"))
    return {name: [pydicom.dcmread(path) for path in paths] for name, paths in made.items()}


def found(dataset: pydicom.Dataset, path: tuple[str, ...]) -> Iterator[DataElement | None]:
    """Yield the element at `path` of every item above it; None where it is absent."""
    if len(path) == 1:
        yield dataset.get(Tag(path[0]))
        return
    for item in dataset.get(path[0], ()):
        yield from found(item, path[1:])


def paths(dataset: pydicom.Dataset, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every element; below Content Sequence a template decides."""
    for element in dataset:
        path = (*above, element.keyword or str(element.tag))
        yield path
        if element.VR == "SQ" and element.keyword != "ContentSequence":
            for item in element.value:
                yield from paths(item, path)


def codes(dataset: pydicom.Dataset, below: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (value, scheme, keyword of the sequence) of every code, at any depth."""
    if "CodeValue" in dataset:
        yield str(dataset.CodeValue), str(dataset.CodingSchemeDesignator), below
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from codes(item, element.keyword)


def test_every_kind_of_object_is_made_and_has_a_list(objects) -> None:
    assert set(objects) == {created.name for created in CREATED}
    for created in CREATED:
        assert {str(ds.SOPClassUID) for ds in objects[created.name]} == {created.sop_class_uid}


@pytest.mark.parametrize("created", CREATED, ids=lambda created: created.name)
def test_an_object_has_no_attribute_that_the_statement_does_not_list(objects, created) -> None:
    listed = {attribute.path for attribute in created.attributes()}

    for dataset in objects[created.name]:
        assert set(paths(dataset)) - listed == set()


@pytest.mark.parametrize("created", CREATED, ids=lambda created: created.name)
def test_what_is_always_there_is_there_with_a_value(objects, created) -> None:
    wrong = []
    for attribute in created.attributes():
        for dataset in objects[created.name]:
            for element in found(dataset, attribute.path):
                absent = element is None
                empty = absent or element.is_empty
                if (attribute.presence is Presence.ALWAYS and empty) or (
                    attribute.presence is Presence.VNAP and absent
                ):
                    wrong.append((attribute.path, attribute.presence))

    assert wrong == []


@pytest.mark.parametrize("created", CREATED, ids=lambda created: created.name)
def test_a_constant_that_is_printed_is_the_value(objects, created) -> None:
    checked = 0
    for attribute in created.attributes():
        plain = attribute.origin is Origin.FIXED and len(attribute.path) == 1
        if not plain or attribute.remark in {"", "empty"}:
            continue
        for dataset in objects[created.name]:
            (element,) = found(dataset, attribute.path)
            if element is not None and element.VR != "SQ" and attribute.path[0] != "ImageComments":
                value = element.value
                said = ", ".join(map(str, value)) if element.VM > 1 else str(value)
                assert said == attribute.remark
                checked += 1

    assert checked


def test_every_code_is_in_the_list_or_of_a_scheme_with_a_table_of_its_own(objects) -> None:
    listed = {(code.value, code.scheme) for code in known_codes()}
    used = {code for all_ in objects.values() for dataset in all_ for code in codes(dataset)}

    unknown = {
        (value, scheme) for value, scheme, _ in used if scheme not in SCHEMES
    } - listed  # fmt: skip
    assert unknown == set()
    assert len(used) > 40
