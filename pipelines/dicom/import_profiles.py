"""What planning systems demand of what they import: one table of rules, one row of it a profile.

A rule has a limit and a basis. The basis says who knows it: the standard, somebody who reported a
failed import, or nobody. Where nobody knows, the limit is a cautious one of ours and the table
says so; no number here is a vendor's unless its source is named. What happens to an object that
breaks a rule is one of four words: fix, warn, hold, ignore. A site changes word and limit for its
own destination (`profile.rules`, `profile.limits`) when an import there has shown more.

This module holds data and loads no library: the configuration reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Action(StrEnum):
    """What happens to an object that breaks a rule."""

    FIX = "fix"
    """Repaired where that touches no geometry and no identity; else held."""
    WARN = "warn"
    """Sent, and said in the findings of the job."""
    HOLD = "hold"
    """Not sent to this destination before a person released it."""
    IGNORE = "ignore"


class Basis(StrEnum):
    """How well a limit is known."""

    STANDARD = "standard"
    """DICOM itself says so."""
    REPORTED = "reported"
    """Somebody met it at this system; the source is named."""
    ASSUMED = "assumed"
    """Not known: a cautious limit of ours."""


class TpsProfile(StrEnum):
    """Systems that have a profile."""

    GENERIC = "generic"
    ECLIPSE = "eclipse"
    RAYSTATION = "raystation"
    MONACO = "monaco"
    PINNACLE = "pinnacle"
    MIM = "mim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is looked at."""

    demand: str
    """What must hold, in words for people; ``{limit}`` stands for the limit."""
    action: Action
    basis: Basis
    source: str
    limit: float | None = None
    """None where the rule has no number."""
    fixable: bool = False
    """Whether `import_fixes` knows a repair that changes no geometry."""


STANDARD_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "transfer-syntax": Rule(
            demand="Explicit or Implicit VR Little Endian, nothing compressed",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.5 10.1: the syntax that every system must know",
        ),
        "required": Rule(
            demand="the attributes without which the object names no patient, study or content",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.3 A.3, A.19: type 1 attributes",
        ),
        "character-set": Rule(
            demand="a Specific Character Set that DICOM defines, and texts that fit it",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.3 C.12.1.1.2",
        ),
        "decimal-length": Rule(
            demand="decimal strings (DS) of at most {limit} bytes",
            action=Action.FIX,
            basis=Basis.STANDARD,
            source="PS3.5 6.2",
            limit=16,
            fixable=True,
        ),
        "label-length": Rule(
            demand="short strings (SH: structure set label, observation labels) of at most"
            " {limit} characters",
            action=Action.FIX,
            basis=Basis.STANDARD,
            source="PS3.5 6.2",
            limit=16,
            fixable=True,
        ),
        "text-length": Rule(
            demand="texts, codes and UIDs no longer than their VR allows",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.5 6.2",
        ),
        "name-length": Rule(
            demand="ROI names of at most {limit} characters",
            action=Action.FIX,
            basis=Basis.STANDARD,
            source="PS3.5 6.2 (LO)",
            limit=64,
            fixable=True,
        ),
        "name-unique": Rule(
            demand="ROI names that differ by more than upper and lower case",
            action=Action.HOLD,
            basis=Basis.ASSUMED,
            source="TG-263 7.2; DICOM itself allows twins",
        ),
        "name-ascii": Rule(
            demand="ROI names and labels in printable ASCII",
            action=Action.WARN,
            basis=Basis.ASSUMED,
            source="no statement of any vendor at hand",
        ),
        "frame-of-reference": Rule(
            demand="one frame of reference for the object, and ROIs in a frame that it names",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.3 C.8.8.5, C.7.4.1",
        ),
        "image-references": Rule(
            demand="contours that name images of the referenced series only",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.3 C.8.8.6",
        ),
        "contour-data": Rule(
            demand="coordinates that are finite triplets and as many as the contour says",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.3 C.8.8.6",
        ),
        "contour-type": Rule(
            demand="contours of type POINT, CLOSED_PLANAR or CLOSEDPLANAR_XOR",
            action=Action.HOLD,
            basis=Basis.REPORTED,
            source="IHE-RO BRTO-II allows planning systems no others",
        ),
        "contour-points": Rule(
            demand="at most {limit} points a contour",
            action=Action.WARN,
            basis=Basis.ASSUMED,
            source="no vendor's limit at hand; ours writes no longer ones",
            limit=1000,
        ),
        "contour-degenerate": Rule(
            demand="closed contours of at least three points that enclose an area",
            action=Action.HOLD,
            basis=Basis.REPORTED,
            source="contours of 1 or 2 points warn or fail on import (issues of open RT tools)",
        ),
        "contour-tiny": Rule(
            demand="closed contours of at least {limit} mm²",
            action=Action.WARN,
            basis=Basis.ASSUMED,
            source="no statement of any vendor at hand",
            limit=1.0,
        ),
        "contour-planar": Rule(
            demand="closed contours that leave their plane by at most {limit} mm",
            action=Action.HOLD,
            basis=Basis.STANDARD,
            source="PS3.3 C.8.8.6.1: planar; the limit is rounding of ours",
            limit=0.1,
        ),
        "holes": Rule(
            demand="holes as keyholes: no contour inside another of its ROI and plane, no XOR",
            action=Action.WARN,
            basis=Basis.ASSUMED,
            source="open readers fill nested contours differently (measured); vendors: not known",
        ),
        "empty-roi": Rule(
            demand="every ROI has a contour",
            action=Action.FIX,
            basis=Basis.ASSUMED,
            source="DICOM allows empty ROIs; no statement of any vendor at hand",
            fixable=True,
        ),
        "one-external": Rule(
            demand="at most one ROI of type EXTERNAL",
            action=Action.HOLD,
            basis=Basis.ASSUMED,
            source="two body outlines leave the dose calculation open",
        ),
        "unapproved": Rule(
            demand="a structure set that says UNAPPROVED",
            action=Action.HOLD,
            basis=Basis.ASSUMED,
            source="rule of this node: its results are drafts",
        ),
        "slice-spacing": Rule(
            demand="images of one series in equal steps: no gap, no twin, one geometry",
            action=Action.HOLD,
            basis=Basis.ASSUMED,
            source="no vendor's tolerance at hand; pipelines.geometry.stack judges",
        ),
    }
)
"""Every rule, as it stands for a system that nobody said more about."""

_CAUTIOUS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "name-length": replace(
            STANDARD_RULES["name-length"],
            basis=Basis.ASSUMED,
            source="16 is widely stated for planning systems; no vendor's document at hand",
            limit=16,
        ),
        "name-ascii": replace(STANDARD_RULES["name-ascii"], action=Action.HOLD),
        "contour-points": replace(STANDARD_RULES["contour-points"], action=Action.HOLD),
        "holes": replace(STANDARD_RULES["holes"], action=Action.HOLD),
    }
)
"""What differs for every named system, because its limits are not known to us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The rules of one kind of destination."""

    title: str
    changes: Mapping[str, Rule] = field(default_factory=dict)
    """Rules that differ from `STANDARD_RULES`."""

    @property
    def rules(self) -> dict[str, Rule]:
        """Return every rule in the order of the table."""
        return {**STANDARD_RULES, **self.changes}

    def adapted(self, actions: Mapping[str, Action], limits: Mapping[str, float]) -> "Profile":
        """Return the profile with a site's own words and limits.

        Raises
        ------
        ValueError
            A name is no rule, a rule has no limit, or nothing can be fixed.
        """
        changed = dict(self.changes)
        for name, rule in self.rules.items():
            limit = limits.get(name, rule.limit)
            word = actions.get(name, rule.action)
            if word is Action.FIX and not rule.fixable:
                raise ValueError(f"'{name}' cannot be fixed without touching what it means")
            if name in limits and rule.limit is None:
                raise ValueError(f"'{name}' has no limit")
            if (limit, word) != (rule.limit, rule.action):
                changed[name] = replace(rule, limit=limit, action=word)
        unknown = sorted((actions.keys() | limits.keys()) - self.rules.keys())
        if unknown:
            raise ValueError(f"'{unknown[0]}' is no rule; there is: {', '.join(self.rules)}")
        return replace(self, changes=changed)


PROFILES: Final[Mapping[TpsProfile, Profile]] = MappingProxyType(
    {
        TpsProfile.GENERIC: Profile(title="any DICOM system: what the standard demands"),
        TpsProfile.ECLIPSE: Profile(
            title="Varian Eclipse",
            changes={
                **_CAUTIOUS,
                "decimal-length": replace(
                    STANDARD_RULES["decimal-length"],
                    basis=Basis.REPORTED,
                    source="longer values fail on import (issues of open RT tools); also PS3.5 6.2",
                ),
                "label-length": replace(
                    STANDARD_RULES["label-length"],
                    basis=Basis.REPORTED,
                    source="a longer label made an import fail (pytrip issues 285 and 291)",
                ),
                "holes": replace(
                    _CAUTIOUS["holes"],
                    source="an export of ARIA 15.5 at hand holds nested contours itself; what it"
                    " makes of ours was not tried",
                ),
            },
        ),
        TpsProfile.RAYSTATION: Profile(
            title="RaySearch RayStation",
            changes={
                **_CAUTIOUS,
                "contour-planar": replace(
                    STANDARD_RULES["contour-planar"],
                    basis=Basis.REPORTED,
                    source="odd geometry makes it fail (pytrip issue 266); the limit is ours",
                ),
            },
        ),
        TpsProfile.MONACO: Profile(title="Elekta Monaco", changes=_CAUTIOUS),
        TpsProfile.PINNACLE: Profile(title="Philips Pinnacle", changes=_CAUTIOUS),
        TpsProfile.MIM: Profile(title="MIM Software MIM", changes=_CAUTIOUS),
    }
)
"""Profile -> its rules. No import into any of these systems has been tried by us."""
