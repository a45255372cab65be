"""Image filters by their parameters (IBSI-2, arXiv 2006.05470): light, so that the node loads them.

Each model has a `label`, short enough for a tracking identifier, and all of its parameters are
written into the report. Angles are fractions of pi, because radians cannot be written exactly.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import override

from pipelines.radiomics.families import Family

Boundary = Literal["zero", "nearest", "periodic", "mirror"]
Pooling = Literal["max", "min", "average"]
Millimeters = Annotated[float, Field(gt=0, le=100)]
WAVELETS = ("haar", "db2", "db3", "coif1")
_SHORT = {"max": "max", "min": "min", "average": "avg"}


def _flat(dimensions: int) -> str:
    """Return a word for filters that work slice by slice."""
    return "" if dimensions == 3 else " 2D"  # noqa: PLR2004 - dimensions of a volume


class _Filter(BaseModel):
    """What all filters share."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    boundary: Boundary = Field(
        default="mirror",
        description="what lies beyond the image: zeros, the nearest value, the image again, or "
        "its mirror image",
        examples=["mirror"],
    )

    @property
    def label(self) -> str:
        """Return a short name that tells filters of one list apart."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """Return every parameter in one line."""
        pairs = self.model_dump(mode="json", exclude={"kind"}).items()
        return f"{self.label}: " + ", ".join(f"{name} {value}" for name, value in pairs)


class Mean(_Filter):
    """Mean over a cube (IBSI S60F)."""

    kind: Literal["mean"] = "mean"
    support: int = Field(default=5, ge=3, le=51, description="edge of the cube [voxels], odd")
    dimensions: Literal[2, 3] = Field(default=3, description="in the volume, or slice by slice")

    @model_validator(mode="after")
    def _support_is_odd(self) -> Self:
        if self.support % 2 == 0:
            raise ValueError("support: a cube about a voxel has an odd edge")
        return self

    @property
    @override
    def label(self) -> str:
        """Return a short name."""
        return f"mean {self.support}{_flat(self.dimensions)}"


class LaplacianOfGaussian(_Filter):
    """Laplacian of Gaussian (IBSI L6PA)."""

    kind: Literal["log"] = "log"
    sigma_mm: Millimeters = Field(default=3.0, description="standard deviation [mm]")
    cutoff: float = Field(default=4.0, ge=2, le=10, description="half width [sigma]")
    dimensions: Literal[2, 3] = Field(default=3, description="in the volume, or slice by slice")

    @property
    @override
    def label(self) -> str:
        """Return a short name."""
        return f"LoG {self.sigma_mm:g} mm{_flat(self.dimensions)}"


class Laws(_Filter):
    """Laws kernels (IBSI JTXT), one for each axis: column, row and, if it is given, slice."""

    kind: Literal["laws"] = "laws"
    kernels: str = Field(
        default="L5E5E5", pattern=r"^([LES][35]|[WR]5){2,3}$", description="kernels, e.g. E5L5S5"
    )
    pooling: Pooling | None = Field(
        default="max", description="rotation invariance by this pooling; none: as it stands"
    )
    energy: int | None = Field(
        default=7, ge=1, le=25, description="mean of magnitudes within this distance [voxels]"
    )

    @property
    @override
    def label(self) -> str:
        """Return a short name."""
        parts = [f"Laws {self.kernels}"]
        parts += [_SHORT[self.pooling]] if self.pooling else []
        return " ".join([*parts, *([f"energy {self.energy}"] if self.energy else [])])


class Gabor(_Filter):
    """Gabor kernels in three orthogonal planes (IBSI Q88H), magnitudes averaged."""

    kind: Literal["gabor"] = "gabor"
    sigma_mm: Millimeters = Field(default=5.0, description="standard deviation [mm]")
    wavelength_mm: Millimeters = Field(default=4.0, description="wavelength [mm]")
    aspect: float = Field(default=1.5, gt=0, le=10, description="ratio of the axes, gamma")
    angle_pi: float = Field(default=0.0, ge=0, lt=2, description="first angle [pi]")
    step_pi: float | None = Field(
        default=0.25, gt=0, le=1, description="step of the angles over which responses are averaged"
    )
    planes: Literal["orthogonal", "axial"] = Field(
        default="orthogonal", description="all three planes, or the slices only"
    )

    @property
    @override
    def label(self) -> str:
        """Return a short name."""
        parts = f"Gabor {self.sigma_mm:g}/{self.wavelength_mm:g}/{self.aspect:g}"
        return parts + (" inv" if self.step_pi else f" {self.angle_pi:g}pi")


class Wavelet(_Filter):
    """Separable wavelets without decimation (IBSI 25BO)."""

    kind: Literal["wavelet"] = "wavelet"
    family: Literal["haar", "db2", "db3", "coif1"] = Field(
        default="coif1", description="Haar, Daubechies 2 or 3, Coiflet 1"
    )
    bands: str = Field(
        default="LLH", pattern=r"^[LH]{3}$", description="low or high along column, row, slice"
    )
    level: int = Field(default=1, ge=1, le=4, description="level of decomposition")
    pooling: Pooling | None = Field(
        default="average", description="rotation invariance by this pooling; none: as it stands"
    )

    @property
    @override
    def label(self) -> str:
        """Return a short name."""
        parts = f"{self.family} {self.bands} {self.level}"
        return f"{parts} {_SHORT[self.pooling]}" if self.pooling else parts


class Simoncelli(_Filter):
    """Isotropic Simoncelli wavelet (IBSI PRT7), with a Riesz transform (IBSI AYRS) if asked for."""

    kind: Literal["simoncelli"] = "simoncelli"
    level: int = Field(default=1, ge=1, le=5, description="level of the band")
    riesz: tuple[int, int, int] | None = Field(
        default=None, description="orders of the Riesz transform along column, row, slice"
    )
    boundary: Literal["periodic"] = Field(
        default="periodic", description="the filter is defined for frequencies: the image goes on"
    )

    @model_validator(mode="after")
    def _orders_are_natural(self) -> Self:
        if self.riesz is not None and (min(self.riesz) < 0 or not 0 < sum(self.riesz) <= 4):  # noqa: PLR2004 - orders beyond are noise
            raise ValueError("riesz: three orders, 1 to 4 together")
        return self

    @property
    @override
    def label(self) -> str:
        """Return a short name."""
        order = "" if self.riesz is None else " Riesz {}{}{}".format(*self.riesz)
        return f"Simoncelli {self.level}{order}"


ImageFilter = Annotated[
    Mean | LaplacianOfGaussian | Laws | Gabor | Wavelet | Simoncelli,
    Field(discriminator="kind"),
]


class FilterSettings(BaseModel):
    """Settings of features of filtered images, for the settings of a pipeline."""

    filters: tuple[ImageFilter, ...] = Field(
        default=(),
        description="image filters of IBSI-2 whose response maps get features too; "
        "see docs/radiomics-engine.md",
        examples=[[{"kind": "log", "sigma_mm": 3.0}, {"kind": "wavelet", "bands": "HHL"}]],
    )
    filter_families: tuple[Family, ...] = Field(
        default=("statistics",),
        description="feature families of response maps",
        examples=[["statistics", "glcm"]],
    )
    filter_bins: int = Field(
        default=32,
        ge=2,
        le=1024,
        description="number of bins for texture of response maps, which have no unit",
        examples=[32],
    )

    @model_validator(mode="after")
    def _filters_differ(self) -> Self:
        labels = [chosen.label for chosen in self.filters]
        if twice := {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"filters: listed twice: {', '.join(sorted(twice))}")
        return self
