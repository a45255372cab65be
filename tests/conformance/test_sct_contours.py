"""Planning contours on the synthetic CT from the whole pipeline, as other software sees them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydantic import ValidationError
from pydicom.dataset import Dataset

from demo import dicom
from models.metrics import agreement
from models.phantom import thorax
from pipelines.api import InputFile, Inputs, Outcome, Provenance, Role, Severity
from pipelines.autocontour.pairs import mask_of
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dicom.volume import read_volume
from pipelines.synthetic_ct.contour_outputs import Contours, planning_contours, write_contours
from pipelines.synthetic_ct.inputs import Read, read_inputs
from pipelines.synthetic_ct.methods import Scene
from pipelines.synthetic_ct.settings import SyntheticCTSettings
from tests.conftest import program
from tests.unit.pipelines.synthetic_ct import sct_support as support

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
DEFORMATION = "1.2.840.10008.5.1.4.1.1.66.3"
TRUTH = thorax(support.CBCT_SHAPE, support.CBCT_SPACING, 1, day=support.DAY).labels


def _objects(**more: list[Dataset]) -> dict[Role, list[Dataset]]:
    return {
        Role.CBCT: support.cbct(),
        Role.PLANNING_CT: support.planning_ct(),
        Role.REG: [support.registration()],
        Role.RTSTRUCT: [support.structures()],
    } | {Role(name): datasets for name, datasets in more.items()}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return support.run_on(
        tmp_path_factory.mktemp("sct"), _objects(), method="histmatch", contours="deformable",
        deformation_object=True, report_pdf=True,
    )  # fmt: skip


Ready = tuple[Read, Scene, Path]
PROVENANCE = Provenance(pipeline="synthetic_ct", version="1", settings_sha256="", sources=())


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Return the inputs as read, the scene, and a folder."""
    folder = tmp_path_factory.mktemp("ready")
    objects = _objects()
    files = [
        InputFile(role=role, path=path, sop_instance_uid=path.stem, sha256="")
        for role, datasets in objects.items()
        for path in dicom.save(datasets, folder / role)
    ]
    read = read_inputs(Inputs(files=tuple(files)))
    scene = Scene(cbct=read.hu, regions=read.regions, geometry=read.cbct.geometry, prior=read.prior)
    return read, scene, folder


def _contours(ready: Ready, settings: SyntheticCTSettings, *structures: Dataset) -> Contours:
    read, scene, folder = ready
    files = [
        InputFile(role=Role.RTSTRUCT, path=path, sop_instance_uid=path.stem, sha256="")
        for path in dicom.save(structures, folder / "given")
    ]
    made = planning_contours(settings, Inputs(files=tuple(files)), read, scene, read.hu)
    assert made is not None
    return made


def _paths(outcome: Outcome, sop_class: str) -> list[Path]:
    return [o.path for o in outcome.objects if o.sop_class_uid == sop_class]


def _dice(outcome: Outcome) -> dict[str, float]:
    """Return the Dice of each structure against the truth of the CBCT's day."""
    sct = read_volume([o.path for o in outcome.objects if o.modality == "CT"])
    (path,) = _paths(outcome, RTSTRUCT)
    found = {}
    for roi in read_structure_set(path).rois:
        name = roi.name.split("^")[0].replace("~", "")
        mask = mask_of(roi, sct)
        mine, truth = mask, TRUTH[name] & _seen(sct.geometry.shape)
        measured = agreement(mine, truth, sct.geometry.spacing)
        assert measured is not None
        found[name] = measured.dice
    return found


def _seen(shape: tuple[int, ...]) -> np.ndarray:
    """Return the field of view of the CBCT without its outermost 3 mm."""
    _, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    return np.asarray(np.hypot(y - 43.5, x - 43.5) * support.CBCT_SPACING[1] < 185)


def test_the_contours_show_the_truth_of_the_day(outcome: Outcome) -> None:
    dice = _dice(outcome)

    assert set(dice) == set(support.CONTOURED)
    assert min(dice[n] for n in ("External", "Lung_L", "Lung_R", "Heart")) > 0.9, dice
    assert dice["GTV"] > 0.75, dice


def test_the_structure_set_lies_on_every_image_of_the_synthetic_ct(outcome: Outcome) -> None:
    images = [pydicom.dcmread(o.path) for o in outcome.objects if o.modality == "CT"]
    (path,) = _paths(outcome, RTSTRUCT)
    ds = pydicom.dcmread(path)

    (frame,) = ds.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    named = [i.ReferencedSOPInstanceUID for i in series.ContourImageSequence]
    assert named == [i.SOPInstanceUID for i in images]
    assert frame.FrameOfReferenceUID == ds.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert ds.StudyInstanceUID == images[0].StudyInstanceUID
    assert ds.ApprovalStatus == "UNAPPROVED"
    assert "UNAPPROVED" in ds.SeriesDescription
    source = support.structures().SOPInstanceUID
    assert source in ds.StructureSetDescription
    assert "deformable" in ds.StructureSetDescription
    for roi in ds.StructureSetROISequence:
        assert roi.ROIName.endswith("^Def")
        assert len(roi.ROIName) <= 16
        assert source in roi.ROIDescription


def test_the_report_tells_volume_and_shift_of_each_structure(outcome: Outcome) -> None:
    report = outcome.objects[0].path.parent / "report"
    told = json.loads((report / "report.json").read_text())["figures"]["contours"]

    assert told["mode"] == "deformable"
    assert told["structures"]["GTV~^Def"]["planned_cc"] == pytest.approx(25.6, abs=1)
    assert max(map(abs, told["structures"]["GTV~^Def"]["shift_mm"])) < 2
    assert told["structures"]["Lung~_L^Def"]["cut"]
    assert told["left_out"] == {"ISO": "it has no closed contour"}
    assert (report / "contours.png").stat().st_size > 10_000
    assert "Planning contours on the synthetic CT" in (report / "report.html").read_text()


@pytest.mark.dciodvfy
@pytest.mark.parametrize("sop_class", [RTSTRUCT, DEFORMATION], ids=["RTSTRUCT", "deformation"])
def test_the_objects_are_valid_dicom(outcome: Outcome, sop_class: str) -> None:
    (path,) = _paths(outcome, sop_class)

    done = subprocess.run([program("dciodvfy"), path], capture_output=True, text=True, check=False)

    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


def test_the_deformation_object_joins_the_frames_of_both_images(outcome: Outcome) -> None:
    (path,) = _paths(outcome, DEFORMATION)
    ds = pydicom.dcmread(path)
    (item,) = ds.DeformableRegistrationSequence
    post = item.PostDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix

    planning = support.planning_ct()
    assert ds.FrameOfReferenceUID == support.cbct()[0].FrameOfReferenceUID
    assert item.SourceFrameOfReferenceUID == planning[0].FrameOfReferenceUID
    assert np.array(post, float).reshape(4, 4) == pytest.approx(support.CBCT_TO_CT)
    others = ds.StudiesContainingOtherReferencedInstancesSequence
    assert [o.StudyInstanceUID for o in others] == [planning[0].StudyInstanceUID]


def test_the_same_inputs_give_the_same_bytes(
    outcome: Outcome, ready: Ready, tmp_path: Path
) -> None:
    settings = SyntheticCTSettings(contours="deformable", deformation_object=True)
    images = [o for o in outcome.objects if o.modality == "CT"]
    written = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        made = _contours(ready, settings, support.structures())
        objects = write_contours(made, settings, images, PROVENANCE, folder)
        written.append([o.path.read_bytes() for o in objects])

    assert len(written[0]) == 2
    assert written[0] == written[1]


def test_without_a_registration_the_images_place_the_contours(tmp_path: Path) -> None:
    objects = _objects()
    del objects[Role.REG]

    rigid = support.run_on(tmp_path, objects, method="lut", contours="rigid")

    dice = _dice(rigid)
    assert min(dice[n] for n in ("External", "Lung_L", "Lung_R", "Heart")) > 0.85, dice
    assert _paths(rigid, DEFORMATION) == []


def _renamed(patient: str) -> Dataset:
    ds = support.structures()
    ds.PatientID = patient
    return ds


def _of_another_ct() -> Dataset:
    ds = support.structures()
    for place in (ds, ds.ReferencedFrameOfReferenceSequence[0]):
        place.FrameOfReferenceUID = "1.2.3.4"
    return ds


@pytest.mark.parametrize(
    ("structures", "why"),
    [
        ([], "none was given"),
        ([support.structures()] * 2, "several were given"),
        ([_renamed("SOMEBODY")], "patient ID"),
        ([_renamed("")], "patient ID"),
        ([support.structures(names=())], "only points"),
        ([_of_another_ct()], "not drawn on the planning CT"),
        (support.planning_ct()[:1], "an RT Structure Set was expected"),
    ],
    ids=["none", "two", "another patient", "nobody", "points", "another CT", "no structure set"],
)
def test_what_cannot_be_brought_over_is_told(
    ready: Ready, structures: list[Dataset], why: str
) -> None:
    made = _contours(ready, SyntheticCTSettings(contours="rigid"), *structures)

    (told,) = made.findings
    assert (told.code, told.severity) == ("contours-not-propagated", Severity.WARN)
    assert why in told.message
    assert made.figures == {}


def test_without_the_planning_ct_the_image_is_sent_alone(tmp_path: Path) -> None:
    alone = _objects()
    del alone[Role.PLANNING_CT], alone[Role.REG]

    done = support.run_on(tmp_path, alone, contours="deformable", deformation_object=True)

    assert any(
        f.code == "contours-not-propagated" and "not in place" in f.message for f in done.findings
    )
    assert {o.modality for o in done.objects} == {"CT"}


def test_nothing_is_added_unless_asked(ready: Ready) -> None:
    read, scene, _ = ready

    assert planning_contours(SyntheticCTSettings(), Inputs(files=()), read, scene, read.hu) is None


def test_the_deformation_is_offered_only_with_deformed_contours() -> None:
    with pytest.raises(ValidationError, match="contours: deformable"):
        SyntheticCTSettings(contours="rigid", deformation_object=True)
