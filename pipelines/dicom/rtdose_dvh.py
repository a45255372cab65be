"""An RT Dose with its dose-volume histograms (PS3.3 A.18, RT DVH module C.8.8.4).

For planning systems and viewers that read DVH Sequence and no SR. The grid is that of the dose
that was evaluated, value for value, because readers expect the curves beside it. Curves are
cumulative and absolute: the k-th volume [cm3] is that with a dose of at least k bins, and each
bin states its width. The object is a draft like everything that is derived here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import RTDoseStorage

from pipelines.api import DerivedObject, InputRejected, OutputInvalid, Provenance
from pipelines.dicom.header import (
    clean_text,
    derived_object,
    new_draft,
    save,
)
from pipelines.dicom.read import text, tolerant
from pipelines.dicom.references import instance_item
from pipelines.dicom.rtdose import DoseGrid, read_dose

SERIES_NUMBER: Final = 9802
"""Ours; clear of what scanners use."""
WIDTHS_GY: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Bin widths; the finest that needs no more than `MAX_BINS` is taken."""
_TYPES: Final = {16: "<u2", 32: "<u4"}
_WIDE: Final = 32
_MOST: Final = 2**32 - 1
_DOSE_STEPS: Final = 0.51
"""Steps of the stored integers that the grid may differ by when it is read back."""
MAX_BINS: Final = 3000
"""A DS value has at most 65534 bytes in Explicit VR; a bin takes up to 21."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """One cumulative DVH."""

    included: tuple[int, ...]
    """ROI numbers whose volumes are united."""
    excluded: tuple[int, ...]
    """ROI numbers that are cut out."""
    width_gy: float
    volume_cc: NDArray[np.float64]
    """Shape (bins,): volume [cm3] with a dose of at least k x `width_gy`; the last is 0."""
    minimum: float
    maximum: float
    mean: float
    """[Gy]"""


def bin_width(maximum_gy: float) -> float:
    """Return the bin width [Gy] for curves up to `maximum_gy`."""
    return next((w for w in WIDTHS_GY if maximum_gy / w < MAX_BINS - 2), WIDTHS_GY[-1])


def write_dvh(
    histograms: Sequence[Histogram],
    grid: DoseGrid,
    structures: Dataset,
    provenance: Provenance,
    path: Path,
    *,
    dose_type: str,
) -> DerivedObject:
    """Write `histograms` and read them back.

    Parameters
    ----------
    histograms
        At least one.
    grid
        The dose that was evaluated, as it was read; its header gives patient, study and plan.
    structures
        Header of the RT Structure Set that holds the ROIs.
    provenance
        Gives the UIDs.
    path
        The DICOM file.
    dose_type
        PHYSICAL or EFFECTIVE.

    Raises
    ------
    InputRejected
        If the dose names no plan: a valid RT Dose must.
    OutputInvalid
        If the file does not give the curves back.
    """
    dose = grid.dataset
    with tolerant():
        plans = [_bare(plan) for plan in dose.get("ReferencedRTPlanSequence") or []]
        if not plans:
            raise InputRejected("the dose names no plan, which an RT Dose with a DVH must do")
        ds = new_draft(
            RTDoseStorage,
            "DVH",
            "RTDOSE",
            [dose, structures],
            provenance,
            series_number=SERIES_NUMBER,
            description="rtnode DVH DRAFT",
        )
        ds.OperatorsName = ""
        ds.FrameOfReferenceUID = text(dose, "FrameOfReferenceUID")
        ds.PositionReferenceIndicator = clean_text("LO", text(dose, "PositionReferenceIndicator"))
        ds.DoseUnits = "GY"
        ds.DoseType = dose_type
        ds.DoseSummationType = "MULTI_PLAN" if len(plans) > 1 else "PLAN"
        ds.DoseComment = "dose of the plan with DVHs; unapproved draft for research use"
        ds.ReferencedRTPlanSequence = plans
        ds.ReferencedStructureSetSequence = [instance_item(structures)]
        _pixels(ds, grid)
        ds.DVHSequence = [_item(histogram, dose_type) for histogram in histograms]
        save(ds, path)
    _check(path, histograms, grid)
    return derived_object(ds, path)


def _pixels(ds: Dataset, grid: DoseGrid) -> None:
    """Write the dose grid: frames ascending along the normal, offsets relative to the first."""
    bits = int(grid.dataset.get("BitsAllocated") or _WIDE)
    scaling = str(grid.dataset.DoseGridScaling)
    stored = np.rint(grid.dose / float(scaling))
    if bits not in _TYPES or stored.max() > 2**bits - 1:  # a sum of beams may not fit
        bits = _WIDE
        scaling = f"{float(grid.dose.max()) / _MOST:.9e}"
        stored = np.minimum(np.rint(grid.dose / float(scaling)), _MOST)
    planes, rows, columns = grid.positions
    first = grid.origin + grid.axes.T @ np.array([planes[0], rows[0], columns[0]])
    ds.ImagePositionPatient = [_number(v) for v in first.tolist()]
    directions = (*grid.axes[2].tolist(), *grid.axes[1].tolist())
    ds.ImageOrientationPatient = [_number(v) for v in directions]
    ds.PixelSpacing = [_number(v) for v in grid.spacing_mm[1:]]
    ds.SliceThickness = ""
    ds.FrameIncrementPointer = Tag("GridFrameOffsetVector")
    ds.GridFrameOffsetVector = [_number(v) for v in (planes - planes[0]).tolist()]
    ds.NumberOfFrames, ds.Rows, ds.Columns = grid.dose.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    ds.DoseGridScaling = scaling
    pixels = stored.astype(_TYPES[bits]).tobytes()
    ds.add(DataElement(Tag("PixelData"), "OW", pixels + b"\0" * (len(pixels) % 2)))


def _number(value: float) -> str:
    """Return a decimal string of at most 16 characters (PS3.5 6.2)."""
    return f"{round(value, 9) + 0.0:.9f}".rstrip("0").rstrip(".")


def _bare(reference: Dataset) -> Dataset:
    """Return the bare reference in an item that may hold more, such as beams."""
    item = Dataset()
    item.ReferencedSOPClassUID = text(reference, "ReferencedSOPClassUID")
    item.ReferencedSOPInstanceUID = text(reference, "ReferencedSOPInstanceUID")
    return item


def _item(histogram: Histogram, dose_type: str) -> Dataset:
    item = Dataset()
    item.DVHType = "CUMULATIVE"
    item.DoseUnits = "GY"
    item.DoseType = dose_type
    item.DVHDoseScaling = "1"
    item.DVHVolumeUnits = "CM3"
    item.DVHNumberOfBins = len(histogram.volume_cc)
    item.DVHMinimumDose = f"{histogram.minimum:.6g}"
    item.DVHMaximumDose = f"{histogram.maximum:.6g}"
    item.DVHMeanDose = f"{histogram.mean:.6g}"
    item.DVHReferencedROISequence = [
        _contribution(number, kind)
        for kind, numbers in (("INCLUDED", histogram.included), ("EXCLUDED", histogram.excluded))
        for number in numbers
    ]
    width = f"{histogram.width_gy:g}"
    pairs = "\\".join(f"{width}\\{volume:.7g}" for volume in histogram.volume_cc.tolist())
    # As one finished text: a list of decimal objects would cost seconds.
    item.add(DataElement(Tag("DVHData"), "DS", pairs, already_converted=True))
    return item


def _contribution(number: int, kind: str) -> Dataset:
    item = Dataset()
    item.DVHROIContributionType = kind
    item.ReferencedROINumber = number
    return item


def _check(path: Path, histograms: Sequence[Histogram], grid: DoseGrid) -> None:
    """Read curves and grid back."""
    written = read_dose(path)
    step = float(written.dataset.DoseGridScaling)
    if np.abs(written.dose - grid.dose).max() > _DOSE_STEPS * step:
        raise OutputInvalid("the dose on disk is not the dose that was evaluated")
    with tolerant():
        for item, histogram in zip(written.dataset.DVHSequence, histograms, strict=True):
            stored = item.get_item("DVHData").value
            text_of = stored.decode("ascii") if isinstance(stored, bytes) else str(stored)
            values = np.array(text_of.strip().split("\\"), dtype=np.float64)
            same = len(values) == 2 * int(item.DVHNumberOfBins) and np.allclose(
                values[1::2], histogram.volume_cc, rtol=1e-6, atol=1e-9
            )
            if not same:
                raise OutputInvalid("the DVH on disk does not hold the curves")
