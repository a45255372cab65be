"""Gates that compare the synthetic CT with the CBCT in detail, and with the corrected CBCT.

The local correlation has the limits of the reference page, section 9. Its limits against the
corrected CBCT (70/75 HU, 5/8 mm) failed good images of a thorax, where that correction itself is
some 80 HU off; these are wider and still stop every fault of the reference.
"""

from typing import Final

from pipelines.imaging.verdict import Gate, Limits
from pipelines.synthetic_ct.agreement import Coarse, bone_ratio, coarse, local_correlation
from pipelines.synthetic_ct.agreement import low_frequency_p99 as low_p99
from pipelines.synthetic_ct.gates import Case, gate
from pipelines.synthetic_ct.wepl import path_difference

LOCAL: Final = Limits(passes=0.50, fails=0.45)
LOCAL_WITH_PLANNING_PIXELS: Final = Limits(passes=0.15, fails=0.10)
"""Another day's texture does not correlate in small windows."""
LOW_FREQUENCY: Final = Limits(passes=100.0, fails=150.0)
PATH: Final = Limits(passes=8.0, fails=15.0)
BONE_LOST: Final = Limits(passes=0.75, fails=0.62)
"""There is no upper limit: scatter takes more than half of the bone from a CBCT."""


def image_gates(case: Case) -> list[Gate]:
    """Return the gates; those against the corrected CBCT need `Case.reference`."""
    pair = coarse(case.sct, case.cbct, case.body, case.spacing)
    return [_local(case, pair), *_bone(case), *_against_reference(case)]


def _local(case: Case, pair: Coarse) -> Gate:
    limits = LOCAL_WITH_PLANNING_PIXELS if case.planning_pixels else LOCAL
    meaning = "somewhere it shows another structure than the CBCT"
    return gate(case, "local-correlation", local_correlation(pair), "", limits, meaning)


def _bone(case: Case) -> list[Gate]:
    """Judge bone against the corrected CBCT, else against the CBCT, which may show too little."""
    shown = case.cbct if case.reference is None else case.reference
    ratio = bone_ratio(coarse(case.sct, shown, case.body, case.spacing))
    if ratio is None:
        return []
    return [gate(case, "bone-lost", ratio, "", BONE_LOST, "bone of the CBCT is missing")]


def _against_reference(case: Case) -> list[Gate]:
    if case.reference is None:
        return []
    pair = coarse(case.sct, case.reference, case.body, case.spacing)
    path = path_difference(pair.sct, pair.cbct, pair.body, pair.spacing)
    where = f"slice {path.worst_slice}, {path.worst_angle_deg:.0f} degrees"
    return [
        gate(
            case,
            "low-frequency",
            low_p99(pair),
            "HU",
            LOW_FREQUENCY,
            "large regions read other HU than the CBCT corrected by the planning CT",
        ),
        gate(
            case,
            "path-length",
            path.p95_mm,
            "mm",
            PATH,
            f"beams would see another thickness; most, {path.worst_mm:.1f} mm, in {where}",
        ),
    ]
