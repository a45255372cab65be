"""The structures that this pipeline knows: name, number, type, color and code, the same each run.

Names follow TG-263 (AAPM 2018) where it has one: at most 16 characters, unique without case. An
organ that the image cuts off gets a tilde before its side (``Lung~_L``). Codes are SNOMED CT.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pipelines.dicom.rtstruct_writer import ConceptCode


class Organ(StrEnum):
    """A structure under its name."""

    EXTERNAL = "External"
    LUNG_L = "Lung_L"
    LUNG_R = "Lung_R"
    LUNGS = "Lungs"
    BONES = "Bones"
    SPINAL_CANAL = "SpinalCanal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is written about a structure, and what is plausible for it."""

    number: int
    interpreted_type: str
    color: tuple[int, int, int]
    code: ConceptCode
    volume_ml: tuple[float, float]
    """Plausible for a patient of any age inside a usual scan; outside is worth a look."""
    whole_organ: bool = False
    """Whether a cut organ must be named so; outline, bones and canal always leave the scan."""


TABLE: Final = MappingProxyType(
    {
        Organ.EXTERNAL: Entry(
            number=1,
            interpreted_type="EXTERNAL",
            color=(0, 200, 0),
            code=ConceptCode(value="38266002", scheme="SCT", meaning="Entire body"),
            volume_ml=(500, 150_000),
        ),
        Organ.LUNG_L: Entry(
            number=2,
            interpreted_type="ORGAN",
            color=(90, 200, 250),
            code=ConceptCode(value="44029006", scheme="SCT", meaning="Left lung"),
            volume_ml=(200, 5000),
            whole_organ=True,
        ),
        Organ.LUNG_R: Entry(
            number=3,
            interpreted_type="ORGAN",
            color=(60, 160, 220),
            code=ConceptCode(value="3341006", scheme="SCT", meaning="Right lung"),
            volume_ml=(200, 5500),
            whole_organ=True,
        ),
        Organ.LUNGS: Entry(
            number=4,
            interpreted_type="ORGAN",
            color=(120, 220, 255),
            code=ConceptCode(value="39607008", scheme="SCT", meaning="Lung"),
            volume_ml=(400, 10_000),
            whole_organ=True,
        ),
        Organ.BONES: Entry(
            number=5,
            interpreted_type="ORGAN",
            color=(200, 200, 190),
            code=ConceptCode(value="272673000", scheme="SCT", meaning="Bone"),
            volume_ml=(20, 15_000),
        ),
        Organ.SPINAL_CANAL: Entry(
            number=6,
            interpreted_type="ORGAN",
            color=(255, 220, 120),
            code=ConceptCode(value="61853006", scheme="SCT", meaning="Vertebral canal"),
            volume_ml=(5, 300),
        ),
    }
)
"""Numbers and colors never change between versions: planners recognize structures by them."""


def written_name(organ: Organ, *, cut: bool) -> str:
    """Return the name to be written; ``~`` marks an organ that the image cuts off (TG-263)."""
    if not (cut and TABLE[organ].whole_organ):
        return organ.value
    stem, _, side = organ.value.rpartition("_")
    return f"{stem}~_{side}" if stem else f"{organ.value}~"
