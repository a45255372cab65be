r"""The vocabulary of matching: what a route or a recognition rule may ask of an object.

Small and declarative on purpose: no expression language, nothing is evaluated. Every operator is
one frozen model; `node.routing.match` decides. A regex is searched by `re` in at most the first
`REGEX_VALUE_LENGTH` characters of a value that a peer sent, so it must not be able to run away:
patterns are short, repeat no group (``(a+)+`` is exponential), use no back-reference and hold at
most `REGEX_MAX_REPEATS` open repeats; what is left takes milliseconds.
"""

import difflib
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, Final, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydicom.datadict import dictionary_VR, keyword_dict

from node.config.types import AETitleText, FrozenMap, Section

REGEX_MAX_LENGTH: Final = 200
"""Characters of a pattern."""
REGEX_MAX_REPEATS: Final = 2
"""Open repeats (``*``, ``+``, ``{n,}``) in a pattern."""
REGEX_VALUE_LENGTH: Final = 256
"""Characters of a value that a pattern is searched in."""

_IDENTITY: Final = frozenset(
    {
        "PatientID",
        "IssuerOfPatientID",
        "OtherPatientIDs",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientAddress",
        "PatientTelephoneNumbers",
        "PatientComments",
        "MilitaryRank",
        "MedicalRecordLocator",
        "AccessionNumber",
        "AdditionalPatientHistory",
        "StudyID",
        "AdmissionID",
        "CountryOfResidence",
        "RegionOfResidence",
        "PatientReligiousPreference",
    }
)
"""Keywords that identify a patient, besides every person name: never stored beside an index."""
_UNMATCHABLE_VR: Final = frozenset(
    {"SQ", "OB", "OW", "OD", "OF", "OL", "OV", "UN", "OB or OW", "NONE"}
)


class Modality(StrEnum):
    """Modality (0008,0060), the defined terms that the node meets (PS3.3 C.7.3.1.1.1)."""

    CT = "CT"
    MR = "MR"
    PT = "PT"
    RTSTRUCT = "RTSTRUCT"
    RTPLAN = "RTPLAN"
    RTDOSE = "RTDOSE"
    RTIMAGE = "RTIMAGE"
    RTRECORD = "RTRECORD"
    REG = "REG"
    SEG = "SEG"
    SR = "SR"
    KO = "KO"
    PR = "PR"
    DOC = "DOC"
    NM = "NM"
    US = "US"
    CR = "CR"
    DX = "DX"
    OT = "OT"


class Kind(StrEnum):
    """What a series is to radiotherapy; finer than Modality, which calls a cone-beam CT a CT."""

    CT = "CT"
    """Modality CT that no rule under `recognize.cbct` matches."""
    CBCT = "CBCT"
    """Modality CT that a rule under `recognize.cbct` matches."""
    MR = "MR"
    PT = "PT"
    RTSTRUCT = "RTSTRUCT"
    """A structure set with contours."""
    POINTS = "POINTS"
    """A structure set of points only, as a cone-beam console exports it: no planning contours."""
    RTPLAN = "RTPLAN"
    RTDOSE = "RTDOSE"
    RTIMAGE = "RTIMAGE"
    REG = "REG"
    SEG = "SEG"
    SR = "SR"
    LOCALIZER = "LOCALIZER"
    """Scouts only: pictures for positioning, not slices of a volume."""
    OTHER = "OTHER"


def checked_keyword(keyword: str) -> str:
    """Return `keyword` if it is a DICOM keyword that may be matched.

    Raises
    ------
    ValueError
        With the nearest keyword, or with the reason why it may not be matched.
    """
    tag = keyword_dict.get(keyword)
    if tag is None:
        near = difflib.get_close_matches(keyword, keyword_dict, n=1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"not a DICOM keyword{guess}")
    vr = dictionary_VR(tag)
    if vr == "PN" or keyword in _IDENTITY:
        raise ValueError("identifies a patient or a person; match on something else")
    if vr in _UNMATCHABLE_VR:
        raise ValueError("is a sequence or binary; only plain values can be matched")
    return keyword


def checked_pattern(pattern: str) -> str:
    """Return `pattern` if it compiles and cannot run away on 256 characters.

    Raises
    ------
    ValueError
        With the rule that it breaks.
    """
    if len(pattern) > REGEX_MAX_LENGTH:
        raise ValueError(f"a pattern has at most {REGEX_MAX_LENGTH} characters")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    repeats = 0
    previous = ""
    for token in _tokens(pattern):
        if re.fullmatch(r"\\[1-9]\d?", token) or token.startswith("(?P="):
            raise ValueError("a pattern has no back-reference")
        if token[0] in "*+{":
            if previous == ")":
                raise ValueError("a pattern repeats characters or [classes], never a (group)")
            repeats += token in {"*", "+"} or token.endswith(",}")
        previous = token
    if repeats > REGEX_MAX_REPEATS:
        raise ValueError(f"a pattern has at most {REGEX_MAX_REPEATS} open repeats (* or +)")
    return pattern


def _tokens(pattern: str) -> Iterator[str]:
    """Split a valid pattern into escapes, classes, repeats, group openings and characters."""
    token = re.compile(
        r"\\[1-9]\d?|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P=|\{\d*,?\d*\}|.", re.DOTALL
    )
    return (found.group() for found in token.finditer(pattern))


Scalar: TypeAlias = str | int | float


class Operator(Section):
    """Base of the operators; a value is the text or number of a DICOM element."""

    symbol: ClassVar[str]


class Equals(Operator):
    """The value, or one of several values, is exactly this."""

    symbol: ClassVar[str] = "equals"
    equals: Scalar = Field(description="Exactly this text or number.", examples=["HFS"])


class OneOf(Operator):
    """The value, or one of several values, is in this list."""

    symbol: ClassVar[str] = "one_of"
    one_of: tuple[Scalar, ...] = Field(
        min_length=1, description="One of these texts or numbers.", examples=[["HFS", "FFS"]]
    )


class Contains(Operator):
    """The value, or one of several values, contains this text, upper or lower case."""

    symbol: ClassVar[str] = "contains"
    contains: str = Field(
        min_length=1, description="Part of the text, upper or lower case.", examples=["Varian"]
    )


class Regex(Operator):
    """The value, or one of several values, contains a match of this pattern."""

    symbol: ClassVar[str] = "regex"
    regex: Annotated[str, AfterValidator(checked_pattern)] = Field(
        description="Python regular expression, searched; no repeated group, no back-reference.",
        examples=["^H(&|and)?N"],
    )


class Range(Operator):
    """The value is a number between these two, both included."""

    symbol: ClassVar[str] = "range"
    range: tuple[float, float] = Field(
        description="Lowest and highest number, both included.", examples=[[100, 140]]
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.range[0] > self.range[1]:
            raise ValueError("the lowest number comes first")
        return self


class Exists(Operator):
    """The element is there with a value (true) or is not (false)."""

    symbol: ClassVar[str] = "exists"
    exists: bool = Field(description="true: has a value; false: has none.", examples=[True])


OPERATORS: Final = {op.symbol: op for op in (Equals, OneOf, Contains, Regex, Range, Exists)}
"""Every operator by the word it has in the configuration."""


def _operator_of(value: object) -> str | None:
    """Tell which operator a condition uses: its first key."""
    if isinstance(value, dict):
        return next((str(key) for key in value), None)
    return getattr(value, "symbol", None)


Condition: TypeAlias = Annotated[
    Annotated[Equals, Tag("equals")]
    | Annotated[OneOf, Tag("one_of")]
    | Annotated[Contains, Tag("contains")]
    | Annotated[Regex, Tag("regex")]
    | Annotated[Range, Tag("range")]
    | Annotated[Exists, Tag("exists")],
    Discriminator(_operator_of),
]
"""One operator with its operand: ``{contains: Varian}``."""


Keyword: TypeAlias = Annotated[str, AfterValidator(checked_keyword)]
"""A DICOM keyword, for example ``Manufacturer``."""
Keywords: TypeAlias = FrozenMap[Keyword, Condition]
"""DICOM keyword -> condition; all must hold."""


class Rule(Section):
    """One way to recognize a kind; all its conditions must hold."""

    name: str = Field(
        min_length=1, description="Name of the rule, shown as the reason.", examples=["varian-obi"]
    )
    keywords: Keywords = Field(
        min_length=1,
        description="DICOM keyword: condition; all must hold. Operators: equals, one_of, contains,"
        " regex, range, exists.",
        examples=[{"Manufacturer": {"contains": "Varian"}}],
    )


class Match(Section):
    """What a series must be for a route; everything that is given must hold."""

    modality: tuple[Modality, ...] = Field(
        default=(), description="Modality (0008,0060) is one of these.", examples=[["CT"]]
    )
    kind: tuple[Kind, ...] = Field(
        default=(),
        description="What the node takes the series for: CT (not cone-beam), CBCT (by the rules"
        " under recognize), MR, PT, RTSTRUCT, POINTS (a structure set without contours), RTPLAN,"
        " RTDOSE, REG, LOCALIZER or OTHER.",
        examples=[["CBCT"]],
    )
    calling_ae_title: tuple[AETitleText, ...] = Field(
        default=(), description="It was sent by one of these AE titles.", examples=[["MODALITY"]]
    )
    called_ae_title: tuple[AETitleText, ...] = Field(
        default=(),
        description="It was sent to one of these AE titles of the node.",
        examples=[["RTNODE"]],
    )
    keywords: Keywords = Field(
        default_factory=dict,
        validate_default=True,
        description="DICOM keyword: condition; all must hold. Operators: equals, one_of, contains,"
        " regex, range, exists.",
        examples=[{"SeriesDescription": {"contains": "H&N"}, "KVP": {"range": [100, 140]}}],
    )

    @model_validator(mode="after")
    def _asks_something(self) -> "Match":
        if not (
            self.modality
            or self.kind
            or self.calling_ae_title
            or self.called_ae_title
            or self.keywords
        ):
            raise ValueError("an empty match would take everything; name at least a kind")
        return self


DEFAULT_CBCT: Final = (
    Rule(
        name="varian",
        keywords={
            "Manufacturer": Contains(contains="Varian"),
            "ManufacturerModelName": Regex(regex="(?i)OBI|On-?Board|Cone-?beam|Halcyon|Ethos"),
        },
    ),
    Rule(
        name="elekta-xvi",
        keywords={
            "Manufacturer": Contains(contains="Elekta"),
            "ManufacturerModelName": Contains(contains="XVI"),
        },
    ),
    Rule(name="image-type", keywords={"ImageType": OneOf(one_of=("CBCT", "CONEBEAM"))}),
    Rule(
        name="series-description",
        keywords={"SeriesDescription": Regex(regex="(?i)CBCT|Cone.?beam")},
    ),
)
"""Cone-beam CT: vendors and models first, then what the image says of itself."""
