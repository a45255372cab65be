"""Settings of the image radiomics pipeline; each one that can change a number goes into the SR."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.radiomics import families as known
from pipelines.radiomics.families import Family
from pipelines.radiomics.filter_settings import FilterSettings
from pipelines.report.settings import PageSettings


class Processing(BaseModel):
    """How images of one modality become levels, after the IBSI reference manual, chapter 2."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    resample_mm: float | None = Field(
        default=2.0,
        ge=0.25,
        le=10,
        description="isotropic voxel [mm]; empty: the voxels of the image",
    )
    mask: Literal["contours", "voxels"] = Field(
        default="contours",
        description="covered fraction of resampled voxels by the contours as drawn, or, as in the "
        "IBSI reference: voxels of the image whose center is inside, interpolated linearly",
    )
    interpolation: Literal["linear", "cubic"] = Field(
        default="linear", description="trilinear, or cubic splines"
    )
    rounded: bool = Field(
        default=False, description="round interpolated values to integers, as for HU"
    )
    range: tuple[float, float] | None = Field(
        default=None, description="re-segmentation: only values from .. to count; bins start there"
    )
    outlier_sigma: float | None = Field(
        default=None,
        gt=0,
        description="re-segmentation: only values within this many standard deviations count",
    )
    bin_size: float | None = Field(
        default=None, gt=0, description="fixed bin size, in the unit of the image"
    )
    bin_number: int | None = Field(
        default=None, ge=2, le=4096, description="fixed bin number, in place of bin_size"
    )
    ivh_step: float | None = Field(
        default=None,
        gt=0,
        description="levels of the intensity-volume histogram; empty: 1000 levels of the region",
    )

    @model_validator(mode="after")
    def _one_way_to_levels(self) -> Self:
        if (self.bin_size is None) == (self.bin_number is None):
            raise ValueError("give either bin_size or bin_number")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range: the lower end must be below the upper")
        return self


class ImageRadiomicsSettings(PageSettings, FilterSettings):
    """Settings of the image radiomics pipeline."""

    rois: tuple[str, ...] = Field(
        default=("GTV*", "CTV*", "PTV*", "ITV*"),
        description="ROIs to evaluate, as names or glob patterns, whatever their case",
        examples=[["GTV*"]],
    )
    families: tuple[Family, ...] = Field(
        default=known.DEFAULT, description=known.TOLD, examples=[["statistics", "glcm"]]
    )
    min_voxels: int = Field(
        default=64, ge=1, description="fewer voxels give no features", examples=[64]
    )
    ct: Processing = Field(
        default=Processing(rounded=True, range=(-1000.0, 3071.0), bin_size=25.0, ivh_step=1.0),
        description="processing of CT and synthetic CT, values in HU",
    )
    mr: Processing = Field(
        default=Processing(resample_mm=1.0, outlier_sigma=3.0, bin_number=32),
        description="processing of MR, whose values have no unit",
    )
    sr: Literal["comprehensive", "enhanced"] = Field(
        default="comprehensive",
        description="SOP class of the report: Comprehensive or Enhanced SR",
        examples=["comprehensive"],
    )
    sr_variant: Literal["R2", "R1"] = Field(
        default="R2",
        description="how the ROI number is attached: R2 is read by all, R1 is the letter of PS3.16",
        examples=["R2"],
    )

    @model_validator(mode="after")
    def _filters_need_cubes(self) -> Self:
        if self.filters and None in (self.ct.resample_mm, self.mr.resample_mm):
            raise ValueError("filters: need isotropic voxels, so resample_mm must be given")
        return self
