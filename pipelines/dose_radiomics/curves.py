"""DVHs of regions in the form that DICOM can say: bins, and which ROIs were united or cut out."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.dicom.rtdose_dvh import Histogram, bin_width
from pipelines.dicom.rtstruct import Roi
from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.geometry.expressions import Both, Either, Name, Node, Not


def histograms(results: Sequence[Evaluated]) -> tuple[list[Histogram], list[str]]:
    """Return the curves of all regions that DICOM can name, and the names of the others.

    DVH ROI Contribution Type knows INCLUDED and EXCLUDED (PS3.3 C.8.8.4): unions of ROIs without
    other ROIs. Dose bands, intersections and margins have no words there.
    """
    found, others = [], []
    for result in results:
        if result.dvh is None:
            continue
        parts = _parts(result.task.node)
        if parts is None:
            others.append(result.name)
            continue
        included, excluded = (_numbers(names, result.task.operands) for names in parts)
        dvh = result.dvh
        width = bin_width(dvh.maximum)
        levels = np.arange(int(dvh.maximum / width) + 2) * width
        cumulative = np.append(np.cumsum(dvh.counts[::-1])[::-1], 0.0)
        volume = np.interp(levels, np.arange(len(cumulative)) * dvh.bin_gy, cumulative, right=0.0)
        volume[-1] = 0.0
        found.append(
            Histogram(
                included=included,
                excluded=excluded,
                width_gy=width,
                volume_cc=volume,
                minimum=dvh.minimum,
                maximum=dvh.maximum,
                mean=dvh.mean,
            )
        )
    return found, others


def _parts(node: Node) -> tuple[tuple[Name, ...], tuple[Name, ...]] | None:
    """Return the names that are united and those that are cut out; None where it is neither."""
    match node:
        case Name():
            return (node,), ()
        case Either(left, right):
            one, other = _parts(left), _parts(right)
            if one is None or other is None or one[1] or other[1]:
                return None
            return one[0] + other[0], ()
        case Both(left, Not(right)):
            kept, cut = _parts(left), _parts(right)
            if kept is None or cut is None or cut[1]:
                return None
            return kept[0], kept[1] + cut[0]
        case _:
            return None


def _numbers(names: Sequence[Name], operands: Mapping[Name, Sequence[Roi]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(roi.number for name in names for roi in operands[name]))
