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
    AIR = "Air"
    BRAINSTEM = "Brainstem"
    SPINAL_CORD = "SpinalCord"
    PAROTID_L = "Parotid_L"
    PAROTID_R = "Parotid_R"
    BONE_MANDIBLE = "Bone_Mandible"
    LARYNX = "Larynx"
    ESOPHAGUS = "Esophagus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is written about a structure, and what is plausible for it."""

    number: int
    interpreted_type: str
    color: tuple[int, int, int]
    code: ConceptCode
    volume_ml: tuple[float, float] = (0.0, float("inf"))
    """Plausible for a patient of any age inside a usual scan; of a learned organ its pack says."""
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
        Organ.AIR: Entry(
            number=7,
            interpreted_type="CAVITY",
            color=(0, 255, 255),
            code=ConceptCode(value="15158005", scheme="SCT", meaning="Air"),
            volume_ml=(0.5, 5000),
        ),
        Organ.BRAINSTEM: Entry(
            number=11,
            interpreted_type="ORGAN",
            color=(170, 120, 60),
            code=ConceptCode(value="15926001", scheme="SCT", meaning="Brainstem"),
            whole_organ=True,
        ),
        Organ.SPINAL_CORD: Entry(
            number=12,
            interpreted_type="ORGAN",
            color=(255, 200, 0),
            code=ConceptCode(value="2748008", scheme="SCT", meaning="Spinal cord"),
        ),
        Organ.PAROTID_L: Entry(
            number=13,
            interpreted_type="ORGAN",
            color=(0, 160, 255),
            code=ConceptCode(value="45289007", scheme="SCT", meaning="Parotid gland"),
            whole_organ=True,
        ),
        Organ.PAROTID_R: Entry(
            number=14,
            interpreted_type="ORGAN",
            color=(0, 110, 200),
            code=ConceptCode(value="45289007", scheme="SCT", meaning="Parotid gland"),
            whole_organ=True,
        ),
        Organ.BONE_MANDIBLE: Entry(
            number=15,
            interpreted_type="ORGAN",
            color=(230, 230, 180),
            code=ConceptCode(value="91609006", scheme="SCT", meaning="Mandible"),
            whole_organ=True,
        ),
        Organ.LARYNX: Entry(
            number=16,
            interpreted_type="ORGAN",
            color=(255, 110, 180),
            code=ConceptCode(value="4596009", scheme="SCT", meaning="Larynx"),
            whole_organ=True,
        ),
        Organ.ESOPHAGUS: Entry(
            number=17,
            interpreted_type="ORGAN",
            color=(200, 80, 40),
            code=ConceptCode(value="32849002", scheme="SCT", meaning="Esophagus"),
        ),
    }
)
"""Numbers and colors never change between versions: planners recognize structures by them."""
LEARNED: Final = frozenset(
    {
        Organ.BRAINSTEM,
        Organ.SPINAL_CORD,
        Organ.PAROTID_L,
        Organ.PAROTID_R,
        Organ.BONE_MANDIBLE,
        Organ.LARYNX,
        Organ.ESOPHAGUS,
    }
)
"""Structures that only a model pack finds."""


def written_name(organ: Organ, *, cut: bool, name: str = "") -> str:
    """Return the name to be written; ``~`` marks an organ that the image cuts off (TG-263).

    `name` is that of a template, if it has one.
    """
    name = name or organ.value
    if not (cut and TABLE[organ].whole_organ):
        return name
    stem, _, side = name.rpartition("_")
    return f"{stem}~_{side}" if stem and side in {"L", "R"} else f"{name}~"
