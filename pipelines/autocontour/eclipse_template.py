"""Structure templates as Eclipse exports them (XML), read into entries of our own template.

Only the parser of Python's library is used, and it is kept from what makes XML dangerous: a
document type, an entity, a file larger than a megabyte or nested deeper than 32 is refused.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, get_args
from xml.parsers import expat

from pydantic import ValidationError

from pipelines.autocontour.template import (
    ClassicalName,
    InterpretedType,
    LearnedName,
    TemplateEntry,
)
from pipelines.dicom.nomenclature import suggest

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 32
MAX_STRUCTURES: Final = 500
_TYPES: Final = MappingProxyType(
    {
        "body": "EXTERNAL", "external": "EXTERNAL", "organ": "ORGAN", "ptv": "PTV", "ctv": "CTV",
        "gtv": "GTV", "itv": "ITV", "avoidance": "AVOIDANCE", "cavity": "CAVITY",
        "contrast agent": "CONTRAST_AGENT", "irrad volume": "IRRAD_VOLUME",
        "treated volume": "TREATED_VOLUME", "control": "CONTROL", "dose region": "DOSE_REGION",
        "support": "SUPPORT", "fixation": "FIXATION",
    }
)  # fmt: skip
"""VolumeType of Eclipse, in lower case -> RT ROI Interpreted Type."""
_RGB: Final = re.compile(r"^\s*RGB\s*(\d{1,3})[ ,;]+(\d{1,3})[ ,;]+(\d{1,3})\s*$", re.IGNORECASE)


class TemplateRefused(ValueError):
    """The file is no structure template, or no XML that is safe to read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a template."""

    entries: tuple[TemplateEntry, ...]
    unknown: tuple[str, ...]
    """Structures that this pipeline does not find."""


@dataclass(slots=True)
class _Item:
    name: str
    texts: dict[str, str] = field(default_factory=dict)


def import_template(path: Path) -> Imported:
    """Read an Eclipse structure template.

    Raises
    ------
    TemplateRefused
    """
    items = _read(path)
    if not items:
        raise TemplateRefused("the file holds no Structure element with an ID: no template")
    known = {*get_args(ClassicalName), *get_args(LearnedName)}
    entries: dict[str, TemplateEntry] = {}
    unknown = []
    for item in items:
        structure = suggest(item.name)
        if structure is None or structure not in known or structure in entries:
            unknown.append(item.name)
            continue
        entries[structure] = _entry(structure, item)
    return Imported(entries=tuple(entries.values()), unknown=tuple(unknown))


def _entry(structure: str, item: _Item) -> TemplateEntry:
    """Return an entry under the template's own name, or the structure's where that cannot be."""
    kind = _TYPES.get(item.texts.get("VolumeType", "").strip().casefold())
    values: dict[str, object] = {"structure": structure}
    if kind in get_args(InterpretedType):
        values["type"] = kind
    rgb = _RGB.match(item.texts.get("ColorAndStyle", ""))
    if rgb and max(map(int, rgb.groups())) <= 255:  # noqa: PLR2004 (a byte)
        values["color"] = "#" + "".join(f"{int(part):02x}" for part in rgb.groups())
    try:
        named = values | ({"name": item.name} if item.name != structure else {})
        return TemplateEntry.model_validate(named)
    except ValidationError:
        return TemplateEntry.model_validate(values)


def _read(path: Path) -> list[_Item]:
    """Return the structures of the file in their order."""
    if path.stat().st_size > MAX_BYTES:
        raise TemplateRefused(f"the file is larger than {MAX_BYTES} bytes")
    reader = _Reader()
    try:
        reader.parser.Parse(path.read_bytes(), True)  # noqa: FBT003 (expat takes no keyword)
    except expat.ExpatError as error:
        raise TemplateRefused(f"no XML: {error}") from error
    return reader.items


class _Reader:
    """Collects Structure elements and the texts of the elements inside each."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.path: list[str] = []
        self.current: _Item | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.EntityDeclHandler = self._refuse_doctype
        self.parser.ExternalEntityRefHandler = self._refuse_doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def _refuse_doctype(self, *_: object) -> int:
        raise TemplateRefused("the XML declares a document type or an entity; it is not read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        if len(self.path) > MAX_DEPTH:
            raise TemplateRefused(f"the XML is nested deeper than {MAX_DEPTH} elements")
        if name == "Structure" and attributes.get("ID", "").strip():
            if len(self.items) >= MAX_STRUCTURES:
                raise TemplateRefused(f"more than {MAX_STRUCTURES} structures")
            self.current = _Item(attributes["ID"].strip())
            self.items.append(self.current)

    def _end(self, name: str) -> None:
        self.path.pop()
        if name == "Structure":
            self.current = None

    def _text(self, text: str) -> None:
        if self.current is not None and self.path:
            texts = self.current.texts
            texts[self.path[-1]] = texts.get(self.path[-1], "") + text
