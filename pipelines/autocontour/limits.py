"""The limits of what an image may say about each structure, and the words for what is beyond.

Set from a real thorax and from procedural patients with room on both sides, before the failures of
`benchmarks/contour_checks.py` were counted. A structure beyond a limit is flagged, not left out:
a tumor in a lung or a metal implant is beyond some of them too. On the wrong side it is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pipelines.api import Finding, Severity
from pipelines.autocontour.evidence import (
    Scene,
    absent,
    behind_mm,
    in_parts,
    left_out,
    lump_mm,
    off_side_mm,
    outside_body,
    stray_mm,
    typical,
    wavering_mm,
)
from pipelines.autocontour.names import LEARNED, Organ
from pipelines.imaging.grid import Mask

WRONG_SIDE: Final = "roi-wrong-side"
"""The one finding after which a structure is not written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a measure may be."""

    measure: Callable[[Organ, Mask, Scene], float]
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    code: str
    sentence: str
    """With the value; `percent` and `value` are filled in."""
    unit: str = ""


_WORDS: Final[Mapping[Callable[[Organ, Mask, Scene], float], _Words]] = MappingProxyType(
    {
        typical: _Words(
            code="roi-strange-values", sentence="only {percent:.0f} % of it has the HU it should"
        ),
        lump_mm: _Words(
            code="roi-strange-lump",
            sentence="it holds a lump of other tissue, {value:.0f} mm in radius",
            unit="mm",
        ),
        outside_body: _Words(
            code="roi-outside-body", sentence="{percent:.1f} % of it lies outside the body"
        ),
        stray_mm: _Words(
            code="roi-outside-body",
            sentence="it reaches {value:.0f} mm and more beyond the body",
            unit="mm",
        ),
        left_out: _Words(
            code="roi-incomplete", sentence="{percent:.1f} % of what looks like it is not in it"
        ),
        in_parts: _Words(
            code="roi-in-parts", sentence="{percent:.0f} % of it is apart from the largest part"
        ),
        absent: _Words(
            code="roi-short", sentence="it is missing on {percent:.0f} % of the body's slices"
        ),
        wavering_mm: _Words(
            code="roi-uneven",
            sentence="its radius changes by {value:.0f} mm from a slice to the next",
            unit="mm",
        ),
        off_side_mm: _Words(
            code=WRONG_SIDE,
            sentence="its center lies {value:+.0f} mm to the patient's left of the body's center",
            unit="mm",
        ),
        behind_mm: _Words(
            code="roi-misplaced",
            sentence="its center lies {value:+.0f} mm behind the body's center",
            unit="mm",
        ),
    }
)
_IN_BODY: Final = Limit(measure=outside_body, high=0.02)
_MIDDLE: Final = Limit(measure=off_side_mm, low=-40.0, high=40.0)
_LEFT: Final = Limit(measure=off_side_mm, low=10.0)
_RIGHT: Final = Limit(measure=off_side_mm, high=-10.0)
_AERATED: Final = (
    Limit(measure=typical, low=0.92),
    Limit(measure=lump_mm, high=9.0),
    Limit(measure=left_out, high=0.08),
    _IN_BODY,
)
_WHOLE: Final = Limit(measure=in_parts, high=0.05)
_BY_SIDE: Final = MappingProxyType({"L": (_LEFT, _IN_BODY), "R": (_RIGHT, _IN_BODY)})
"""What is known of an organ from its name alone."""
LIMITS: Final[Mapping[Organ, tuple[Limit, ...]]] = MappingProxyType(
    {organ: _BY_SIDE.get(organ.rpartition("_")[2], (_IN_BODY,)) for organ in LEARNED}
    | {
        Organ.EXTERNAL: (
            Limit(measure=outside_body, high=0.002),
            Limit(measure=stray_mm, high=4.5),
            Limit(measure=left_out, high=0.002),
        ),
        Organ.LUNG_L: (*_AERATED, _WHOLE, _LEFT),
        Organ.LUNG_R: (*_AERATED, _WHOLE, _RIGHT),
        Organ.LUNGS: _AERATED,
        Organ.BONES: (
            Limit(measure=typical, low=0.75),
            Limit(measure=lump_mm, high=9.6),
            Limit(measure=left_out, high=0.25),
            _IN_BODY,
        ),
        Organ.SPINAL_CANAL: (
            Limit(measure=typical, low=0.9),
            Limit(measure=absent, high=0.4),
            Limit(measure=wavering_mm, high=5.0),
            Limit(measure=behind_mm, low=15.0),
            _MIDDLE,
            _WHOLE,
            _IN_BODY,
        ),
        Organ.AIR: (Limit(measure=typical, low=0.9), _IN_BODY),
        Organ.BRAINSTEM: (_MIDDLE, _IN_BODY),
        Organ.SPINAL_CORD: (_MIDDLE, _IN_BODY),
        Organ.BONE_MANDIBLE: (Limit(measure=typical, low=0.5), _MIDDLE, _IN_BODY),
        Organ.LARYNX: (_MIDDLE, _IN_BODY),
        Organ.ESOPHAGUS: (_MIDDLE, _IN_BODY),
    }
)


def beyond(organ: Organ, mask: Mask, scene: Scene) -> tuple[Finding, ...]:
    """Return a finding for each limit that a structure is beyond; none for an empty one."""
    if not mask.any():
        return ()
    findings = []
    for limit in LIMITS[organ]:
        value = limit.measure(organ, mask, scene)
        if limit.low <= value <= limit.high:
            continue
        words = _WORDS[limit.measure]
        findings.append(
            Finding(
                code=words.code,
                severity=Severity.WARN,
                message=f"{organ}: " + words.sentence.format(percent=100 * value, value=value),
                roi=organ.value,
                value=round(value, 4),
                unit=words.unit or None,
                limit=limit.low if value < limit.low else limit.high,
            )
        )
    return tuple(findings)
