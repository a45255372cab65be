"""An approved structure set against the draft that we had sent: one score for each structure.

Both are read back from their files and rasterised by the same rule on the same CT, so a set that
nobody touched scores exactly 1 and says so: either the draft was right, or nobody looked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from pipelines.api import InputRejected
from pipelines.autocontour.names import LEARNED
from pipelines.autocontour.pairs import Pair, counterpart, mask_of, paired
from pipelines.dicom.read import text
from pipelines.dicom.rtstruct import StructureSet, read_structure_set
from pipelines.dicom.volume import read_volume

_PREFIX: Final = "rtnode autocontour "
"""Of Algorithm Name in our structure sets."""
_CLASSICAL: Final = "classical"
_APPROVED: Final = "APPROVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One structure of the draft and its approved counterpart."""

    pair: Pair
    model: str
    """What made it: name and version of a model pack, or ``classical``."""
    version: str
    """Of the pipeline."""
    unchanged: bool
    """No voxel of the CT differs."""


def accepted(images: Sequence[Path], draft: Path, approved: Path) -> list[Accepted]:
    """Return the scores of all structures that both sets hold.

    Parameters
    ----------
    images
        Slices of the CT that the draft was made from.
    draft, approved
        RT Structure Sets; the first one is ours.

    Raises
    ------
    InputRejected
        The approved set is not approved, or was drawn in another frame of reference, or nothing
        of it has a counterpart.
    """
    ours, theirs = read_structure_set(draft), read_structure_set(approved)
    _gate(ours, theirs)
    volume = read_volume(images)
    models = _models(ours.dataset)
    found = []
    for roi in ours.rois:
        other = counterpart(roi.name, theirs.rois)
        if other is None or not roi.closed:
            continue
        pair = paired(roi.name, other, mask_of(roi, volume), volume)
        if pair is None:
            continue
        model, version = models.get(roi.number, (_CLASSICAL, ""))
        same = bool(np.array_equal(pair.mine, pair.other))
        found.append(Accepted(pair=pair, model=_of(roi.name, model), version=version,
                              unchanged=same))  # fmt: skip
    if not found:
        raise InputRejected("no structure of the approved set has a counterpart in the draft")
    return found


def _gate(ours: StructureSet, theirs: StructureSet) -> None:
    """Refuse what cannot be compared."""
    if text(theirs.dataset, "ApprovalStatus") != _APPROVED:
        raise InputRejected("the structure set is not approved")
    if ours.frame_of_reference_uid != theirs.frame_of_reference_uid:
        raise InputRejected("the approved set is in another frame of reference than the draft")


def _models(dataset: Dataset) -> dict[int, tuple[str, str]]:
    """Return ROI number -> (model, version of the pipeline), as the draft states them."""
    found = {}
    for item in dataset.get("StructureSetROISequence") or ():
        algorithms = item.get("ROIDerivationAlgorithmIdentificationSequence") or ()
        for algorithm in list(algorithms)[:1]:
            name = text(algorithm, "AlgorithmName").removeprefix(_PREFIX)
            found[int(item.ROINumber)] = (name, text(algorithm, "AlgorithmVersion"))
    return found


def _of(organ: str, model: str) -> str:
    """Return which of the methods of a run made a structure: ``classical + pack 1.0`` has two."""
    classical, plus, pack = model.partition(" + ")
    if not plus:
        return model
    return pack if organ.replace("~", "") in {o.value for o in LEARNED} else classical
