"""From what was found to what is written: the entries of the template, one after the other.

An entry whose structure was not found, or did not pass its checks, is left out with the reason,
and so is what would be derived from it; the others are written.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipelines.api import Finding, Severity
from pipelines.autocontour.checks import Verdict
from pipelines.autocontour.derive import derive, largest, sharpened
from pipelines.autocontour.names import LEARNED, TABLE, Organ, written_name
from pipelines.autocontour.template import TemplateEntry
from pipelines.dicom.rtstruct_writer import Structure
from pipelines.geometry.contours import LEVEL
from pipelines.imaging.grid import Values, WorkImage

DERIVED_NUMBER: Final = 101
"""Of the first derived structure; organs are below."""
PALETTE: Final = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167),
    (0, 114, 178), (192, 192, 192),
)  # fmt: skip
"""Okabe and Ito (2008), for derived structures without a color."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """What is written, and what is shown of it."""

    structures: tuple[Structure, ...]
    """On the grid of the CT."""
    surfaces: Mapping[str, Values]
    """Name -> field on the work grid, as written."""
    colors: Mapping[str, tuple[int, int, int]]
    findings: tuple[Finding, ...]


@dataclass(slots=True, kw_only=True)
class _Tray:
    """What the entries so far have made."""

    organs: Mapping[str, Values]
    """Structures that may be used, by their name in lower case."""
    named: dict[str, Values] = field(default_factory=dict)
    """Fields of the entries above, by their name in lower case."""

    def take(self, name: str) -> Values:
        """Return the field behind a name; an entry above stands before a structure."""
        folded = name.casefold()
        return self.named[folded] if folded in self.named else self.organs[folded]


def assemble(
    entries: Sequence[TemplateEntry],
    surfaces: Mapping[Organ, Values],
    verdicts: Mapping[Organ, Verdict],
    image: WorkImage,
    pixel_mm: float,
) -> Assembled:
    """Make the structures of a template.

    Parameters
    ----------
    entries
        Checked against each other by the settings.
    surfaces : mapping
        What was found, fields on the work grid.
    verdicts : mapping
        Of the same structures.
    image : WorkImage
    pixel_mm : float
        Of the CT.
    """
    usable = {o.value.casefold(): s for o, s in surfaces.items() if verdicts[o].write}
    tray = _Tray(organs=usable)
    structures: list[Structure] = []
    findings: list[Finding] = []
    shown: dict[str, Values] = {}
    for place, entry in enumerate(entries):
        missing = [o for o in entry.operands if o.casefold() not in {*tray.organs, *tray.named}]
        if missing:
            findings += _absent(entry, missing)
            continue
        surface = _surface(entry, tray, image)
        if not (surface >= LEVEL).any():
            findings.append(_empty(entry))
            continue
        tray.named[entry.roi_name.casefold()] = surface
        made = _structure(entry, surface, verdicts, image, pixel_mm, place)
        structures.append(made)
        shown[made.name] = surface
    return Assembled(
        structures=tuple(_numbered(structures)),
        surfaces=shown,
        colors={s.name: s.color for s in structures},
        findings=tuple(findings),
    )


def _surface(entry: TemplateEntry, tray: _Tray, image: WorkImage) -> Values:
    """Return the field of an entry on the work grid."""
    if entry.node is None:
        surface = tray.organs[(entry.structure or "").casefold()]
    else:
        surface = derive(entry.node, tray.take, image)
    return largest(surface) if entry.largest else surface


def _structure(
    entry: TemplateEntry,
    surface: Values,
    verdicts: Mapping[Organ, Verdict],
    image: WorkImage,
    pixel_mm: float,
    place: int,
) -> Structure:
    values, corner = image.fine(surface)
    color = PALETTE[place % len(PALETTE)]
    if entry.color is not None:
        red, green, blue = bytes.fromhex(entry.color[1:])
        color = (red, green, blue)
    if entry.structure is None:
        return Structure(
            number=0,
            name=entry.roi_name,
            field=sharpened(values, image, pixel_mm),
            corner=corner,
            interpreted_type=entry.type or "CONTROL",
            color=color,
            description=_derivation(entry),
            remark="derived from automatic contours; not reviewed",
            label=entry.display_name,
        )
    organ = Organ(entry.structure)
    known, verdict = TABLE[organ], verdicts[organ]
    return Structure(
        number=known.number,
        name=written_name(organ, cut=verdict.cut, name=entry.roi_name),
        field=values,
        corner=corner,
        interpreted_type=entry.type or known.interpreted_type,
        color=color if entry.color is not None else known.color,
        code=known.code,
        description=_method(organ) + ("; largest part" if entry.largest else ""),
        remark=verdict.remark,
        label=entry.display_name,
    )


def _numbered(structures: Sequence[Structure]) -> Iterator[Structure]:
    """Yield structures with their numbers: an organ's own, the next free one for all others."""
    taken = set()
    following = DERIVED_NUMBER
    for structure in structures:
        number = structure.number
        if not number or number in taken:
            number, following = following, following + 1
        taken.add(number)
        yield dataclasses.replace(structure, number=number)


def _derivation(entry: TemplateEntry) -> str:
    part = ", largest part" if entry.largest else ""
    return f"derived: {entry.expression}{part}"


def _method(organ: Organ) -> str:
    return "learned model" if organ in LEARNED else "classical method without a learned model"


def _absent(entry: TemplateEntry, missing: Sequence[str]) -> list[Finding]:
    """Tell what a derived structure lacks; why a structure is missing was told before."""
    if entry.expression is None:
        return []
    return [
        Finding(
            code="derived-not-made",
            severity=Severity.WARN,
            message=f"{entry.roi_name} was left out: its expression needs {' and '.join(missing)}",
            roi=entry.roi_name,
        )
    ]


def _empty(entry: TemplateEntry) -> Finding:
    return Finding(
        code="roi-empty",
        severity=Severity.WARN,
        message=f"{entry.roi_name} was left out: it has no volume",
        roi=entry.roi_name,
    )
