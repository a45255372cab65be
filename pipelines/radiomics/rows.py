"""Features as rows of a table and as JSON: every value, both aggregations, response maps too."""

from collections.abc import Callable, Iterator
from typing import Final

from pipelines.api import Json
from pipelines.radiomics.features import FEATURES
from pipelines.radiomics.region import Features

HEADER: Final = (
    "region", "code", "family", "feature", "aggregation", "unit", "value", "stability", "filter",
)  # fmt: skip
MERGED, AVERAGED = "3D merged", "3D averaged"
_DIRECTED = frozenset({"glcm", "glrlm"})
"""Families that exist in both aggregations."""


def unknown(code: str) -> str:  # noqa: ARG001 - the shape of a look-up
    """Return no stability class."""
    return ""


def rows(
    region: str, features: Features, intensity: str, stability: Callable[[str], str] = unknown
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one region under `HEADER`, values with all their digits.

    Parameters
    ----------
    region : str
        Its name.
    features : Features
    intensity : str
        UCUM unit of the image, 1 if it has none.
    stability : callable
        From an IBSI code to the stability class of a merged value.
    """
    parts = [("", intensity, stability, features.values, features.averaged)]
    parts += [(r.label, "1", unknown, r.values, r.averaged) for r in features.responses]
    for label, unit, stable, merged, averaged in parts:
        for values, how in ((merged, MERGED), (averaged, AVERAGED)):
            for code, value in values.items():
                feature = FEATURES[code]
                yield (
                    region, code, feature.family, feature.name,
                    how if feature.family in _DIRECTED else "3D", feature.unit_for(unit),
                    repr(value), stable(code) if how == MERGED else "", label,
                )  # fmt: skip


def as_json(features: Features) -> dict[str, Json]:
    """Return the values of one region as plain JSON."""
    responses: list[Json] = [
        {
            "filter": r.label,
            "parameters": r.words,
            "features": dict(r.values),
            "features_averaged": dict(r.averaged),
        }
        for r in features.responses
    ]
    return {
        "features": dict(features.values),
        "features_averaged": dict(features.averaged),
        "responses": responses,
        "voxels": features.voxels,
    }
