"""One color and line style a region, the same in every picture of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.dose_radiomics.evaluate import Evaluated
from pipelines.report.figures import COLORS, DASHES
from pipelines.report.lettering import drawable

BODY: Final = "#c0c0c0"
"""Color of the body outline, which is in every picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a region is drawn."""

    name: str
    color: str
    style: str


def looks(results: Sequence[Evaluated]) -> list[Look]:
    """Return how each region is drawn, in order; derived ones are dashed, they lie on others."""
    colors = [color for color in COLORS if color != BODY]
    found, used = [], 0
    for result in results:
        if result.roi.interpreted_type == "EXTERNAL" and not result.expression:
            found.append(Look(name=_shown(result), color=BODY, style="-"))
            continue
        rounds = used // len(colors) + bool(result.expression)
        style = DASHES[rounds % len(DASHES)]
        found.append(Look(name=_shown(result), color=colors[used % len(colors)], style=style))
        used += 1
    return found


def _shown(result: Evaluated) -> str:
    """Return the name, or the ROI number where the font of the pictures lacks its letters."""
    return result.name if drawable(result.name) == result.name else f"ROI {result.roi.number}"
