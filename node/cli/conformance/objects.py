"""The objects that pipelines create: which pipeline, which attributes, where the values come from.

The attribute lists stand beside this module in ``objects/``, one line an attribute::

    [Patient]                          the module, as PS3.3 calls it
    PatientName VNAP COPY
    ReferencedSeriesSequence ALWAYS AUTO
    > SeriesInstanceUID ALWAYS COPY    in each item of the sequence above

Tag and name follow from the keyword. A test makes the objects and compares
(``tests/conformance/test_created_objects.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from node.cli.conformance.markdown import table
from node.config.model import Route

_LISTS: Final = Path(__file__).resolve().parent / "objects"


class Presence(StrEnum):
    """Whether an attribute and its value are there (PS3.2 annex A.8)."""

    ALWAYS = "ALWAYS"
    """Always there with a value."""
    VNAP = "VNAP"
    """Always there; the value is missing where it is not known."""
    ANAP = "ANAP"
    """Not always there."""


class Origin(StrEnum):
    """Where a value comes from."""

    COPY = "COPY"
    """From the input."""
    AUTO = "AUTO"
    """Computed."""
    FIXED = "FIXED"
    """A constant."""
    CONFIG = "CONFIG"
    """From the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of a created object."""

    module: str
    path: tuple[str, ...]
    """Keywords from the data set down to the attribute."""
    presence: Presence
    origin: Origin
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A kind of object that the node makes."""

    name: str
    """Of its list in ``objects/``, and the modality of the objects."""
    title: str
    sop_class_uid: str
    told: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Pipeline -> the setting that asks for it; empty for always."""
    variants: Mapping[str, str] = field(default_factory=dict)
    """Value of the setting `sr` -> the SOP class that the object then has."""

    def makers(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the pipelines that make it in this SOP class, each with its setting."""
        if sop_class_uid == self.sop_class_uid:
            return tuple(f"{p} (`{s}`)" if s else p for p, s in self.settings.items())
        values = [value for value, uid in self.variants.items() if uid == sop_class_uid]
        return tuple(f"{p} (`sr: {value}`)" for p in self.settings for value in values)

    def made_by(self, route: Route) -> str | None:
        """Return the SOP class in which the jobs of a route make it, if they do."""
        setting = self.settings.get(route.pipeline)
        if setting is None or not route.enabled:
            return None
        chosen = route.pipeline_settings()
        if setting and getattr(chosen, setting) in {False, "none"}:
            return None
        return self.variants.get(getattr(chosen, "sr", ""), self.sop_class_uid)

    def attributes(self) -> tuple[Attribute, ...]:
        """Return its list."""
        return tuple(_read(_LISTS / f"{self.name.lower()}.txt"))

    @property
    def table(self) -> str:
        """The list as a table."""
        return table(
            ("module", "attribute", "tag", "VR", "presence", "source", "remark"),
            [
                (
                    a.module,
                    "> " * (len(a.path) - 1) + dictionary_description(a.path[-1]),
                    _tag(a.path[-1]),
                    dictionary_VR(a.path[-1]),
                    a.presence,
                    a.origin,
                    a.remark,
                )
                for a in self.attributes()
            ],
        )


CREATED: Final = (
    Created(
        name="RTSTRUCT",
        title="RT Structure Set",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.481.3",
        told="On the CT of the input, or on the synthetic CT: closed planar contours, names after"
        " TG-263 or the template, propagated ones with `^Rig` or `^Def`.",
        settings={"autocontour": "", "synthetic_ct": "contours"},
    ),
    Created(
        name="CT",
        title="CT Image (synthetic CT, image quality)",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        told="A series on the grid and in the frame of reference of the CBCT or CT, in its study;"
        " `image_quality` may part each slice into thinner ones.",
        settings={"synthetic_ct": "", "image_quality": ""},
    ),
    Created(
        name="SR",
        title="Comprehensive SR",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        variants={"enhanced": "1.2.840.10008.5.1.4.1.1.88.22"},
        told="TID 1500, one measurement group for each ROI, and for each response map of a filter."
        " With `sr: enhanced` it is an Enhanced SR of the same content. Items below Content"
        " Sequence follow the template; annex C has the codes.",
        settings={"dose_radiomics": "", "image_radiomics": ""},
    ),
    Created(
        name="SEG",
        title="Segmentation",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        told="BINARY: masks of the contours on the CT, or of the regions on the resampled dose.",
        settings={"autocontour": "segmentation", "dose_radiomics": "segmentation"},
    ),
    Created(
        name="REG",
        title="Deformable Spatial Registration",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.3",
        told="From the synthetic CT, whose frame of reference is the registered one, to the"
        " planning CT: the vectors, then the rigid matrix (PS3.3 C.20.3.1.1).",
        settings={"synthetic_ct": "deformation_object"},
    ),
    Created(
        name="RTDOSE",
        title="RT Dose with DVH",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.481.2",
        told="The grid of the input with a cumulative DVH Sequence, volumes in CM3.",
        settings={"dose_radiomics": "dvh_object"},
    ),
    Created(
        name="DOC",
        title="Encapsulated PDF",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.104.1",
        told="The report page; it names no patient, identity is in the attributes.",
        settings=dict.fromkeys(("autocontour", "synthetic_ct", "dose_radiomics"), "report_pdf"),
    ),
    Created(
        name="OT",
        title="Secondary Capture",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        told="The first sheet of the report page as an RGB image; it names no patient, identity is"
        " in the attributes.",
        settings=dict.fromkeys(("autocontour", "synthetic_ct", "dose_radiomics"), "report_image"),
    ),
)
"""Every kind of object that the pipelines make."""


def _read(path: Path) -> Iterator[Attribute]:
    module = ""
    above: tuple[str, ...] = ()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            module = line.strip("[]")
            continue
        depth = line.count("> ")
        keyword, presence, origin, *remark = line[2 * depth :].split(maxsplit=3)
        above = (*above[:depth], keyword)
        yield Attribute(
            module=module,
            path=above,
            presence=Presence(presence),
            origin=Origin(origin),
            remark=remark[0] if remark else "",
        )


def _tag(keyword: str) -> str:
    number = tag_for_keyword(keyword)
    if number is None:
        raise ValueError(f"{keyword} is no keyword of the DICOM dictionary")
    tag = Tag(number)
    return f"({tag.group:04X},{tag.element:04X})"
