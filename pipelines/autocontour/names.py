"""The structures that this pipeline knows: name, number, type, color and code, the same each run.

Names follow TG-263 (AAPM 2018) where it has one: at most 16 characters, unique without case. An
organ that the image cuts off gets a tilde before its side (``Lung~_L``). Codes are SNOMED CT.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, get_args

from pipelines.autocontour.template import LearnedName
from pipelines.dicom.nomenclature import partial_name
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
    BRAIN = "Brain"
    EYE_L = "Eye_L"
    EYE_R = "Eye_R"
    LENS_L = "Lens_L"
    LENS_R = "Lens_R"
    OPTICNRV_L = "OpticNrv_L"
    OPTICNRV_R = "OpticNrv_R"
    OPTICCHIASM = "OpticChiasm"
    PITUITARY = "Pituitary"
    HIPPOCAMPUS_L = "Hippocampus_L"
    HIPPOCAMPUS_R = "Hippocampus_R"
    GLND_LACRIMAL_L = "Glnd_Lacrimal_L"
    GLND_LACRIMAL_R = "Glnd_Lacrimal_R"
    GLND_SUBMAND_L = "Glnd_Submand_L"
    GLND_SUBMAND_R = "Glnd_Submand_R"
    GLND_THYROID = "Glnd_Thyroid"
    CAVITY_ORAL = "Cavity_Oral"
    PHARYNX = "Pharynx"
    COCHLEA_L = "Cochlea_L"
    COCHLEA_R = "Cochlea_R"
    BRACHIALPLEX_L = "BrachialPlex_L"
    BRACHIALPLEX_R = "BrachialPlex_R"
    TRACHEA = "Trachea"
    HEART = "Heart"
    A_AORTA = "A_Aorta"
    A_PULMONARY = "A_Pulmonary"
    V_VENACAVA_S = "V_Venacava_S"
    V_VENACAVA_I = "V_Venacava_I"
    LIVER = "Liver"
    GALLBLADDER = "Gallbladder"
    SPLEEN = "Spleen"
    PANCREAS = "Pancreas"
    STOMACH = "Stomach"
    DUODENUM = "Duodenum"
    BOWEL_SMALL = "Bowel_Small"
    COLON = "Colon"
    KIDNEY_L = "Kidney_L"
    KIDNEY_R = "Kidney_R"
    ADRENAL_L = "Adrenal_L"
    ADRENAL_R = "Adrenal_R"
    BLADDER = "Bladder"
    RECTUM = "Rectum"
    PROSTATE = "Prostate"
    SEMINALVES = "SeminalVes"
    UTERUS = "Uterus"
    FEMUR_HEAD_L = "Femur_Head_L"
    FEMUR_HEAD_R = "Femur_Head_R"
    FEMUR_L = "Femur_L"
    FEMUR_R = "Femur_R"
    SACRUM = "Sacrum"
    HUMERUS_L = "Humerus_L"
    HUMERUS_R = "Humerus_R"
    CLAVICLE_L = "Clavicle_L"
    CLAVICLE_R = "Clavicle_R"
    SCAPULA_L = "Scapula_L"
    SCAPULA_R = "Scapula_R"
    STERNUM = "Sternum"
    BREAST_L = "Breast_L"
    BREAST_R = "Breast_R"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is written about a structure, and what is plausible for it."""

    number: int
    interpreted_type: str
    color: tuple[int, int, int]
    code: ConceptCode | None
    volume_ml: tuple[float, float] = (0.0, float("inf"))
    """Plausible for a patient of any age inside a usual scan; a pack's own ranges go before."""
    whole_organ: bool = False
    """Whether a cut organ must be named so; outline, bones and canal always leave the scan."""


_FIRST_IMPORTED: Final = 21
"""Number of the first organ that the node's own pack does not find."""
_IMPORTED: Final = (
    (Organ.BRAIN, "12738006", "Brain", (255, 190, 190), (300, 2200)),
    (Organ.EYE_L, "81745001", "Eye", (0, 200, 255), (2, 20)),
    (Organ.EYE_R, "81745001", "Eye", (0, 150, 210), (2, 20)),
    (Organ.LENS_L, "78076003", "Lens", (180, 220, 255), (0.02, 1.5)),
    (Organ.LENS_R, "78076003", "Lens", (140, 190, 240), (0.02, 1.5)),
    (Organ.OPTICNRV_L, "18234004", "Optic nerve", (120, 255, 120), (0.1, 4)),
    (Organ.OPTICNRV_R, "18234004", "Optic nerve", (80, 220, 80), (0.1, 4)),
    (Organ.OPTICCHIASM, "244453006", "Optic chiasm", (60, 180, 60), (0.05, 3)),
    (Organ.PITUITARY, "56329008", "Pituitary", (255, 120, 60), (0.05, 3)),
    (Organ.HIPPOCAMPUS_L, "5366008", "Hippocampus", (255, 160, 220), (0.5, 8)),
    (Organ.HIPPOCAMPUS_R, "5366008", "Hippocampus", (230, 130, 200), (0.5, 8)),
    (Organ.GLND_LACRIMAL_L, "13561001", "Lacrimal gland", (200, 255, 200), (0.05, 4)),
    (Organ.GLND_LACRIMAL_R, "13561001", "Lacrimal gland", (170, 230, 170), (0.05, 4)),
    (Organ.GLND_SUBMAND_L, "54019009", "Submandibular gland", (90, 130, 255), (1, 30)),
    (Organ.GLND_SUBMAND_R, "54019009", "Submandibular gland", (60, 100, 220), (1, 30)),
    (Organ.GLND_THYROID, "", "", (255, 210, 90), (2, 200)),
    (Organ.CAVITY_ORAL, "74262004", "Oral cavity", (255, 140, 140), (10, 250)),
    (Organ.PHARYNX, "54066008", "Pharynx", (220, 110, 160), (1, 80)),
    (Organ.COCHLEA_L, "", "", (255, 255, 120), (0.02, 2)),
    (Organ.COCHLEA_R, "", "", (230, 230, 90), (0.02, 2)),
    (Organ.BRACHIALPLEX_L, "36582005", "Brachial plexus", (200, 200, 90), (1, 60)),
    (Organ.BRACHIALPLEX_R, "36582005", "Brachial plexus", (170, 170, 60), (1, 60)),
    (Organ.TRACHEA, "44567001", "Trachea", (150, 230, 255), (5, 120)),
    (Organ.HEART, "80891009", "Heart", (255, 80, 80), (100, 2000)),
    (Organ.A_AORTA, "15825003", "Aorta", (220, 30, 30), (20, 900)),
    (Organ.A_PULMONARY, "81040000", "Pulmonary artery", (160, 60, 220), (10, 300)),
    (Organ.V_VENACAVA_S, "48345005", "Superior vena cava", (70, 70, 220), (3, 100)),
    (Organ.V_VENACAVA_I, "64131007", "Inferior vena cava", (50, 50, 180), (10, 300)),
    (Organ.LIVER, "10200004", "Liver", (190, 120, 60), (300, 5000)),
    (Organ.GALLBLADDER, "28231008", "Gallbladder", (90, 200, 90), (1, 250)),
    (Organ.SPLEEN, "78961009", "Spleen", (160, 80, 160), (20, 2500)),
    (Organ.PANCREAS, "15776009", "Pancreas", (240, 190, 110), (10, 300)),
    (Organ.STOMACH, "69695003", "Stomach", (240, 170, 190), (20, 2500)),
    (Organ.DUODENUM, "38848004", "Duodenum", (210, 170, 110), (5, 400)),
    (Organ.BOWEL_SMALL, "30315005", "Small intestine", (230, 150, 90), (50, 5000)),
    (Organ.COLON, "71854001", "Colon", (180, 140, 90), (50, 5000)),
    (Organ.KIDNEY_L, "64033007", "Kidney", (255, 150, 0), (20, 900)),
    (Organ.KIDNEY_R, "64033007", "Kidney", (220, 120, 0), (20, 900)),
    (Organ.ADRENAL_L, "23451007", "Adrenal gland", (255, 230, 150), (0.3, 60)),
    (Organ.ADRENAL_R, "23451007", "Adrenal gland", (230, 200, 120), (0.3, 60)),
    (Organ.BLADDER, "89837001", "Bladder", (255, 255, 0), (10, 2000)),
    (Organ.RECTUM, "34402009", "Rectum", (150, 100, 50), (10, 600)),
    (Organ.PROSTATE, "41216001", "Prostate", (200, 100, 255), (5, 400)),
    (Organ.SEMINALVES, "64739004", "Seminal vesicle", (170, 90, 210), (0.5, 80)),
    (Organ.UTERUS, "35039007", "Uterus", (255, 130, 190), (10, 2000)),
    (Organ.FEMUR_HEAD_L, "2812003", "Head of femur", (210, 210, 160), (10, 200)),
    (Organ.FEMUR_HEAD_R, "2812003", "Head of femur", (190, 190, 140), (10, 200)),
    (Organ.FEMUR_L, "71341001", "Femur", (230, 220, 190), (20, 1500)),
    (Organ.FEMUR_R, "71341001", "Femur", (210, 200, 170), (20, 1500)),
    (Organ.SACRUM, "54735007", "Sacrum", (200, 190, 150), (30, 600)),
    (Organ.HUMERUS_L, "85050009", "Humerus", (230, 225, 200), (10, 700)),
    (Organ.HUMERUS_R, "85050009", "Humerus", (210, 205, 180), (10, 700)),
    (Organ.CLAVICLE_L, "51299004", "Clavicle", (220, 215, 190), (5, 120)),
    (Organ.CLAVICLE_R, "51299004", "Clavicle", (200, 195, 170), (5, 120)),
    (Organ.SCAPULA_L, "79601000", "Scapula", (225, 215, 185), (10, 300)),
    (Organ.SCAPULA_R, "79601000", "Scapula", (205, 195, 165), (10, 300)),
    (Organ.STERNUM, "56873002", "Sternum", (235, 225, 195), (10, 250)),
    (Organ.BREAST_L, "76752008", "Breast", (255, 200, 220), (50, 5000)),
    (Organ.BREAST_R, "76752008", "Breast", (235, 180, 200), (50, 5000)),
)  # fmt: skip
"""Organs that packs of others may find, their code (SCT, from pydicom's dictionary; empty where it
has none), meaning, color and the widest plausible volume [ml]. New ones go to the end."""
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
    | {
        organ: Entry(
            number=number,
            interpreted_type="ORGAN",
            color=color,
            code=ConceptCode(value=code, scheme="SCT", meaning=meaning) if code else None,
            volume_ml=volume_ml,
            whole_organ=True,
        )
        for number, (organ, code, meaning, color, volume_ml) in enumerate(
            _IMPORTED, _FIRST_IMPORTED
        )
    }
)
"""Numbers and colors never change between versions: planners recognize structures by them."""
LEARNED: Final = frozenset(Organ(name) for name in get_args(LearnedName))
"""Structures that only a model pack finds."""


def written_name(organ: Organ, *, cut: bool, name: str = "") -> str:
    """Return the name to be written; ``~`` marks an organ that the image cuts off (TG-263).

    `name` is that of a template, if it has one.
    """
    name = name or organ.value
    if not (cut and TABLE[organ].whole_organ):
        return name
    return partial_name(name)
