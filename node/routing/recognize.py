"""What is a series? By SOP class and modality together, then by the rules of the configuration.

Both must agree: a secondary capture that calls itself CT is a screenshot, and an MR can never
enter a CT pipeline whatever its header says. Cone-beam CT is CT by SOP class and modality; only
the rules under ``recognize.cbct`` tell it apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from node.config.match import Kind, Rule
from node.domain import Instance
from node.routing.match import judge_rule
from pipelines.dicom.header import MANUFACTURER

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_KINDS: Final[Mapping[tuple[str, str], Kind]] = MappingProxyType(
    {
        (_STORAGE + "2", "CT"): Kind.CT,
        (_STORAGE + "2.1", "CT"): Kind.CT,
        (_STORAGE + "2.2", "CT"): Kind.CT,
        (_STORAGE + "4", "MR"): Kind.MR,
        (_STORAGE + "4.1", "MR"): Kind.MR,
        (_STORAGE + "4.4", "MR"): Kind.MR,
        (_STORAGE + "128", "PT"): Kind.PT,
        (_STORAGE + "128.1", "PT"): Kind.PT,
        (_STORAGE + "130", "PT"): Kind.PT,
        (_STORAGE + "481.1", "RTIMAGE"): Kind.RTIMAGE,
        (_STORAGE + "481.2", "RTDOSE"): Kind.RTDOSE,
        (_STORAGE + "481.3", "RTSTRUCT"): Kind.RTSTRUCT,
        (_STORAGE + "481.5", "RTPLAN"): Kind.RTPLAN,
        (_STORAGE + "481.8", "RTPLAN"): Kind.RTPLAN,
        (_STORAGE + "66.1", "REG"): Kind.REG,
        (_STORAGE + "66.3", "REG"): Kind.REG,
        (_STORAGE + "66.4", "SEG"): Kind.SEG,
        (_STORAGE + "88.11", "SR"): Kind.SR,
        (_STORAGE + "88.22", "SR"): Kind.SR,
        (_STORAGE + "88.33", "SR"): Kind.SR,
        (_STORAGE + "88.34", "SR"): Kind.SR,
    }
)
"""(SOP class, modality) -> kind (PS3.4 B.5); everything else is OTHER."""


def recognize(instances: Sequence[Instance], cbct: Iterable[Rule]) -> tuple[Kind, str]:
    """Return the kind of a series and the reason in words.

    Parameters
    ----------
    instances
        All objects of the series, scouts included.
    cbct
        Rules of the configuration; any one that holds on all objects makes a CT a CBCT.
    """
    slices = without_scouts(instances)
    if not slices:
        return Kind.LOCALIZER, "every object is a localizer"
    kinds = {_kind(i) for i in slices}
    if len(kinds) > 1:
        return Kind.OTHER, f"the objects are of different kinds: {', '.join(sorted(kinds))}"
    kind = kinds.pop()
    if kind is Kind.CT:
        for rule in cbct:
            held, reason = judge_rule(rule, slices)
            if held:
                return Kind.CBCT, reason
        return Kind.CT, "CT by SOP class and modality, and no cone-beam rule holds"
    return kind, f"{kind} by SOP class and modality"


def without_scouts(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """Return the objects that are not localizers (ImageType value 3, PS3.3 C.8.2.1.1.1)."""
    return tuple(i for i in instances if not _is_scout(i))


def is_ours(instances: Iterable[Instance]) -> bool:
    """Return whether any object says that this software made it or had a part in it."""
    return any(
        MANUFACTURER in _texts(i, "Manufacturer")
        or MANUFACTURER in _texts(i, "ContributingEquipmentManufacturer")
        for i in instances
    )


def _kind(instance: Instance) -> Kind:
    header = instance.header
    kind = _KINDS.get((header.sop_class_uid, header.modality), Kind.OTHER)
    if kind is Kind.RTSTRUCT:
        types = _texts(instance, "ContourGeometricType")
        if types and set(types) <= {"POINT"}:
            return Kind.POINTS
    return kind


def _is_scout(instance: Instance) -> bool:
    return "LOCALIZER" in _texts(instance, "ImageType")


def _texts(instance: Instance, keyword: str) -> list[str]:
    value = instance.header.keywords.get(keyword)
    many = value if isinstance(value, list) else [] if value is None else [value]
    return [str(v).strip() for v in many]
