"""Names of the feature families, as settings take them."""

from typing import Final, Literal

Family = Literal[
    "morphology", "enclosing", "autocorrelation", "statistics", "histogram", "ivh", "local",
    "glcm", "glrlm", "glszm", "gldzm", "neighborhood",
]  # fmt: skip
DEFAULT: Final[tuple[Family, ...]] = (
    "morphology", "statistics", "histogram", "ivh", "local", "glcm", "glrlm", "glszm", "gldzm",
    "neighborhood",
)  # fmt: skip
TOLD: Final = (
    "feature families; neighborhood is NGTDM and NGLDM; autocorrelation and enclosing (smallest "
    "box and ellipsoid) are slow"
)
"""Description of the setting."""
