"""What an expression means in a dose: covered fractions, and ROIs found by name.

The grammar is that of `pipelines.geometry.expressions`. The algebra works on covered fractions f:
A|B is the maximum, A&B the minimum, A-B is min(f_A, 1 - f_B), a band is 0 or 1; with a threshold
of 0.5 afterwards that equals Boolean algebra on the single masks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.rtstruct import Roi
from pipelines.geometry.expressions import Band, Both, Either, Leaf, Margin, Name, Node, Not

Floats = NDArray[np.float64]


def fractions(
    node: Node, leaf: Callable[[Leaf], Floats], dose: Floats, prescription: float | None
) -> Floats:
    """Return the covered fraction of every cell.

    Parameters
    ----------
    node : Node
    leaf : callable
        Covered fraction of a named operand or of a margin, any shape.
    dose : ndarray, same shape [Gy]
    prescription : float or None
        [Gy], for limits in percent.
    """
    match node:
        case Name() | Margin():
            return leaf(node)
        case Band(low, high):
            inside = np.ones(dose.shape, dtype=bool)
            if low is not None:
                limit = low.gray(prescription)
                inside &= dose >= limit if low.closed else dose > limit
            if high is not None:
                limit = high.gray(prescription)
                inside &= dose <= limit if high.closed else dose < limit
            return inside.astype(np.float64)
        case Either(left, right):
            one, other = (fractions(n, leaf, dose, prescription) for n in (left, right))
            return np.maximum(one, other)
        case Both(left, right):
            one, other = (fractions(n, leaf, dose, prescription) for n in (left, right))
            return np.minimum(one, other)
        case Not(inner):
            return 1.0 - fractions(inner, leaf, dose, prescription)


def possible(node: Node, leaf: Callable[[Leaf], Floats]) -> tuple[Floats | float, Floats | float]:
    """Return the smallest and the largest covered fraction that any dose could leave."""
    match node:
        case Name() | Margin():
            covered = leaf(node)
            return covered, covered
        case Band():
            return 0.0, 1.0
        case Not(inner):
            low, high = possible(inner, leaf)
            return 1.0 - high, 1.0 - low
        case Either(left, right) | Both(left, right):
            combine = np.maximum if isinstance(node, Either) else np.minimum
            one, other = possible(left, leaf), possible(right, leaf)
            return combine(one[0], other[0]), combine(one[1], other[1])


_SIDES: Final[Mapping[str, str]] = {
    "l": "left", "lt": "left", "lft": "left", "r": "right", "rt": "right", "rgt": "right",
}  # fmt: skip
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "lungs": ("Lung_L", "Lung_R"),
    "kidneys": ("Kidney_L", "Kidney_R"),
    "parotids": ("Parotid_L", "Parotid_R"),
}
"""Paired organs of TG-263 that are the union of two where the whole is absent."""
_SAME: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    ("both", "lungs"): ("lungs",),
    ("bilateral", "lungs"): ("lungs",),
    ("lungs", "total"): ("lungs",),
    ("lung", "total"): ("lungs",),
    ("body",): ("external",),
    ("skin",): ("external",),
    ("oesophagus",): ("esophagus",),
    ("cord",): ("cord", "spinal"),
    ("spinalcord",): ("cord", "spinal"),
}
"""Words of a name in alphabetical order -> the words of the TG-263 name."""
_TARGET: Final = re.compile(r"^(i?gtv|ctv|itv|ptv)$", re.IGNORECASE)
_GROWN: Final = re.compile(r"[+]|\d\s*mm|ring|minus|shell|opt|expan|eval", re.IGNORECASE)
"""A target name with one of these is a help structure, not the target."""


def key(name: str) -> tuple[str, ...]:
    """Return the words of an ROI name in one spelling: Lung-Left, LT LUNG and Lung_L are one."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.split(r"[^0-9a-z]+", split.casefold())
    found = tuple(sorted(_SIDES.get(word, word) for word in words if word))
    return _SAME.get(found, found)


def find(name: Name, rois: Sequence[Roi]) -> tuple[Roi, ...]:
    """Return the ROIs that `name` stands for; none where nothing matches.

    In this order: the name itself whatever its case, another spelling of it, the parts of a
    paired organ, and for a bare GTV, CTV, ITV or PTV all ROIs whose name starts with it.
    """
    if name.pattern:
        pattern = re.compile(name.text, re.IGNORECASE)
        return tuple(roi for roi in rois if pattern.search(roi.name))
    wanted = name.text.strip().casefold()
    if exact := tuple(roi for roi in rois if roi.name.casefold() == wanted):
        return exact
    if same := tuple(roi for roi in rois if key(roi.name) == key(name.text)):
        return same
    if _TARGET.match(name.text):
        return tuple(
            roi
            for roi in rois
            if roi.name.casefold().startswith(wanted) and not _GROWN.search(roi.name)
        )
    parts = [find(Name(part), rois) for part in _PARTS.get(wanted, ())]
    return tuple(roi for part in parts for roi in part) if all(parts) else ()
