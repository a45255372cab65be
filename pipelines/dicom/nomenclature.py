"""Names of structures after TG-263 (AAPM 2018): what a name probably means, and what is wrong.

The table is our own and small: organs that are drawn every day and the spellings that real
structure sets bear, not the nomenclature itself. A name is compared by its words, whatever their
order, case and separators; sides may be written L, LT, Left, 左.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

MAX_LENGTH: Final = 16
"""Characters; longer names are cut by some planning systems, and cut names collide."""

_SIDES: Final[Mapping[str, str]] = MappingProxyType(
    {"l": "L", "lt": "L", "lft": "L", "left": "L", "r": "R", "rt": "R", "rgt": "R", "right": "R"}
)
_PAIRED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Lung": "lung|肺",
        "Kidney": "kidney|ren|腎臓|腎",
        "Parotid": "parotid|parotis|parotid gland|glnd parotid|耳下腺",
        "Glnd_Submand": "submandibular|submand|submandibular gland|smg|glnd submand|顎下腺",
        "Glnd_Lacrimal": "lacrimal|lacrimal gland|glnd lacrimal|涙腺",
        "Eye": "eye|eyeball|globe|orbit|眼球",
        "Lens": "lens|水晶体",
        "OpticNrv": "optic nerve|on|optic nrv|opticnerve|opt nerve|視神経",
        "Cochlea": "cochlea|inner ear|蝸牛",
        "Hippocampus": "hippocampus|海馬",
        "Lobe_Temporal": "temporal lobe|temporallobe|lobe temporal|側頭葉",
        "BrachialPlex": "brachial plexus|brachialplexus|brachial plex|腕神経叢",
        "Breast": "breast|mamma|乳房",
        "Femur_Head": "femoral head|femoralhead|femur head|caput femoris|大腿骨頭",
        "Femur": "femur|大腿骨",
        "Humerus_Head": "humeral head|humerus head|上腕骨頭",
        "Testis": "testis|testicle|精巣",
        "Ovary": "ovary|卵巣",
        "Retina": "retina|網膜",
        "Adrenal": "adrenal|adrenal gland|副腎",
    }
)
"""Name without side -> spellings, words in any order."""
_SINGLE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "External": "external|body|skin contour|patient|outline|体輪郭|体表",
        "Lungs": "lungs|both lungs|lungs total|lung total|total lung|lung bilateral|両肺|全肺",
        "Kidneys": "kidneys|both kidneys|両腎",
        "Parotids": "parotids|both parotids|両耳下腺",
        "Eyes": "eyes|両眼",
        "Bones": "bones|skeleton|bone|骨",
        "SpinalCanal": "spinal canal|spinalcanal|canal|vertebral canal|脊柱管",
        "SpinalCord": "spinal cord|spinalcord|cord|myelon|medulla spinalis|脊髄",
        "Brainstem": "brainstem|brain stem|truncus|脳幹",
        "Brain": "brain|cerebrum|脳|全脳",
        "Cerebellum": "cerebellum|小脳",
        "OpticChiasm": "optic chiasm|chiasm|chiasma|opticchiasm|視交叉",
        "Pituitary": "pituitary|hypophysis|pituitary gland|下垂体",
        "Bone_Mandible": "mandible|bone mandible|mandibula|jaw|下顎骨",
        "Cavity_Oral": "oral cavity|oralcavity|cavity oral|mouth|口腔",
        "Lips": "lips|lip|口唇",
        "Larynx": "larynx|voice box|喉頭",
        "Pharynx": "pharynx|咽頭",
        "Musc_Constrict": "constrictor|pharyngeal constrictor|constrictors|musc constrict|pcm",
        "Glnd_Thyroid": "thyroid|thyroid gland|glnd thyroid|甲状腺",
        "Esophagus": "esophagus|oesophagus|oesoph|esoph|食道",
        "Trachea": "trachea|windpipe|気管",
        "Heart": "heart|cor|心臓|心",
        "A_LAD": "lad|left anterior descending|a lad",
        "A_Aorta": "aorta|a aorta|大動脈",
        "V_Venacava_S": "svc|superior vena cava|上大静脈",
        "Liver": "liver|hepar|肝臓|肝",
        "Spleen": "spleen|脾臓|脾",
        "Stomach": "stomach|gaster|胃",
        "Pancreas": "pancreas|膵臓|膵",
        "Duodenum": "duodenum|十二指腸",
        "Bowel": "bowel|intestine|腸管|腸",
        "Bag_Bowel": "bowel bag|bowelbag|bag bowel|peritoneal cavity",
        "Bowel_Small": "small bowel|smallbowel|small intestine|bowel small|小腸",
        "Bowel_Large": "large bowel|largebowel|bowel large|大腸",
        "Colon": "colon|結腸",
        "Colon_Sigmoid": "sigmoid|colon sigmoid|s状結腸",
        "Rectum": "rectum|直腸",
        "Anus": "anus|肛門",
        "Canal_Anal": "anal canal|canal anal|肛門管",
        "Bladder": "bladder|urinary bladder|膀胱",
        "Prostate": "prostate|前立腺",
        "SeminalVes": "seminal vesicles|seminal vesicle|seminalvesicles|sv|精嚢",
        "PenileBulb": "penile bulb|penilebulb|bulb penile",
        "Uterus": "uterus|子宮",
        "Cervix": "cervix|子宮頸部",
        "Vagina": "vagina|膣",
        "Gallbladder": "gallbladder|gall bladder|胆嚢",
        "Skin": "skin|皮膚",
    }
)
"""Name -> spellings, words in any order."""
_TARGET: Final = re.compile(r"^(?:I?GTV|I?CTV|ITV|PTV)[A-Za-z0-9_^~.+!-]*$")
_PLANNING_RISK: Final = re.compile(r"^(?P<base>.+?)[ _]*PRV[ _]*(?P<mm>\d{0,2})(?: ?mm)?$", re.I)
_ALLOWED: Final = re.compile(r"^[A-Za-z0-9_^~.+!-]+$")
"""Characters that TG-263 names are made of."""


class Fault(StrEnum):
    """What is wrong with a name as such."""

    LENGTH = "longer than 16 characters"
    CHARACTERS = "has characters beside letters, digits and _ ^ ~ . + ! -"
    NOT_UNIQUE = "not unique when case is ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A name with what is said about it."""

    name: str
    suggestion: str | None
    """TG-263 name that it probably means; None where the table does not know it."""
    faults: tuple[Fault, ...]

    @property
    def conforms(self) -> bool:
        """Whether nothing is to be changed; an unknown name without a fault stays."""
        return not self.faults and self.suggestion in {None, self.name}


def suggest(name: str) -> str | None:
    """Return the TG-263 name that `name` probably means, or None.

    Targets keep their name where it begins as TG-263 has it.
    """
    text = unicodedata.normalize("NFKC", name).strip()
    if _TARGET.match(text):
        return text
    if risk := _PLANNING_RISK.match(text):
        base = suggest(risk["base"])
        margin = f"{int(risk['mm']):02}" if risk["mm"] else ""
        whole = f"{base}_PRV{margin}"
        return whole if base and len(whole) <= MAX_LENGTH else None
    partial = "~" in text
    found = _KNOWN.get(_words(text.replace("~", "")))
    return partial_name(found) if found and partial else found


def partial_name(name: str) -> str:
    """Return `name` of a structure that is not whole: ``~`` before the side, else at the end."""
    stem, _, side = name.rpartition("_")
    return f"{stem}~_{side}" if stem and side in {"L", "R"} else f"{name}~"


def judge(names: Sequence[str]) -> tuple[Judged, ...]:
    """Return what is said about each of the names of one structure set."""
    counts = Counter(name.strip().casefold() for name in names)
    return tuple(
        Judged(name=name, suggestion=suggest(name), faults=tuple(_faults(name, counts)))
        for name in names
    )


def _faults(name: str, counts: Counter[str]) -> list[Fault]:
    checks = {
        Fault.LENGTH: len(name) > MAX_LENGTH,
        Fault.CHARACTERS: not _ALLOWED.match(name),
        Fault.NOT_UNIQUE: counts[name.strip().casefold()] > 1,
    }
    return [fault for fault, found in checks.items() if found]


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a name in one spelling and order; a side is L or R."""
    name = re.sub(r"([左右])側?", lambda m: {"左": " L ", "右": " R "}[m[1]], name)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.split(r"[\W_]+", name.casefold())
    return tuple(sorted(_SIDES.get(word, word) for word in words if word))


def _table() -> dict[tuple[str, ...], str]:
    known = {}
    for name, spellings in _SINGLE.items():
        for spelling in (name, *spellings.split("|")):
            known[_words(spelling)] = name
    for name, spellings in _PAIRED.items():
        for spelling in (name, *spellings.split("|")):
            for side in ("L", "R"):
                known[_words(f"{spelling} {side}")] = f"{name}_{side}"
    return known


_KNOWN: Final = MappingProxyType(_table())
"""Words -> TG-263 name."""
