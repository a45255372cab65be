"""The shipped head-and-neck pack through the pipeline, on a patient it was never trained on."""

import numpy as np
import pytest
from numpy.typing import NDArray

from node.worker import process_folder
from pipelines.dicom.read import read_header
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dicom.volume import read_volume
from pipelines.geometry.polygons import rasterise
from pipelines.geometry.stack import StackGeometry

LEAST_DICE = {
    "Brainstem": 0.70,
    "SpinalCord": 0.65,
    "Parotid_L": 0.78,
    "Parotid_R": 0.78,
    "Bone_Mandible": 0.85,
}
"""A little under what was measured on pt_2 when the pack was made."""
DRAWN_AS = {"LeftParotid": "Parotid_L", "RightParotid": "Parotid_R", "Mandible": "Bone_Mandible"}

pytestmark = [pytest.mark.devpack, pytest.mark.slow]


def masks(path, geometry: StackGeometry) -> dict[str, NDArray[np.bool_]]:
    """Return name -> mask; names of clinicians in TG-263's words, without the partial mark."""
    found = {}
    for roi in read_structure_set(path).rois:
        mask = np.zeros(geometry.shape, np.bool_)
        planes: dict[int, list[NDArray[np.float64]]] = {}
        for loop in roi.loops:
            at = geometry.indices(loop.points)
            planes.setdefault(round(float(at[:, 0].mean())), []).append(at[:, 1:])
        for k, loops in planes.items():
            if 0 <= k < geometry.shape[0]:
                mask[k] = rasterise(loops, geometry.shape[1:])
        found[DRAWN_AS.get(roi.name, roi.name).replace("~", "")] = mask
    return found


def test_organs_of_an_unseen_patient_lie_where_the_clinician_drew_them(devpack, tmp_path):
    folder = devpack / "dev_openkbp_hn" / "pt_2"
    by_modality: dict[str, list] = {}
    for path in sorted(folder.rglob("*.dcm")):
        by_modality.setdefault(read_header(path).Modality, []).append(path)

    code = process_folder(
        "autocontour", folder, tmp_path / "out", {"model_pack": "headneck-openkbp"}
    )

    assert code == 0
    geometry = read_volume(by_modality["CT"]).geometry
    drawn = masks(by_modality["RTSTRUCT"][0], geometry)
    ours = masks(tmp_path / "out" / "rtstruct.dcm", geometry)
    dice = {
        name: 2 * (drawn[name] & ours[name]).sum() / (drawn[name].sum() + ours[name].sum())
        for name in LEAST_DICE
    }
    assert {n: round(float(d), 3) for n, d in dice.items() if d < LEAST_DICE[n]} == {}


def test_a_thorax_gets_no_head_and_neck_organs(devpack, tmp_path, capsys):
    folder = devpack / "dev_lung1_001_thorax" / "CT"

    code = process_folder(
        "autocontour", folder, tmp_path / "out", {"model_pack": "headneck-openkbp"}
    )

    assert code == 0
    names = {roi.name for roi in read_structure_set(tmp_path / "out" / "rtstruct.dcm").rois}
    assert not names & {"Brainstem", "Parotid_L", "Parotid_R", "Bone_Mandible", "Larynx"}
    assert "Lung_L" in {n.replace("~", "") for n in names}
    assert "headneck-openkbp is for head and neck, of which" in "".join(capsys.readouterr())
