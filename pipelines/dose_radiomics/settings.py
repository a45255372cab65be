"""Settings of the dose radiomics pipeline; each one that can change a number goes into the SR."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal[
    "morphology", "autocorrelation", "statistics", "histogram", "ivh", "local", "glcm", "glrlm",
    "glszm", "gldzm", "neighborhood",
]  # fmt: skip
Percent = Annotated[float, Field(gt=0, le=100)]
Gray = Annotated[float, Field(gt=0)]


class DoseRadiomicsSettings(BaseModel):
    """Settings of the dose radiomics pipeline."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    rois: tuple[str, ...] = Field(
        default=("*",),
        description="ROIs to evaluate, as names or glob patterns, whatever their case",
        examples=[["PTV*", "Lung*"]],
    )
    exclude_types: tuple[str, ...] = Field(
        default=(
            "SUPPORT", "BOLUS", "FIXATION", "MARKER", "REGISTRATION", "ISOCENTER",
            "CONTRAST_AGENT", "DOSE_MEASUREMENT", "BRACHY_ACCESSORY", "BRACHY_SRC_APP",
        ),
        description="RT ROI Interpreted Types that are no anatomy and are left out",
        examples=[["SUPPORT"]],
    )  # fmt: skip
    presets: tuple[str, ...] = Field(
        default=("Lungs - GTV",),
        description="derived ROIs, evaluated where the structure set has their operands",
        examples=[["Lungs - GTV", "Lungs & D>=20Gy"]],
    )
    derived: tuple[str, ...] = Field(
        default=(),
        description="derived ROIs that must be there; a missing operand becomes a finding",
        examples=[["Lungs & 5Gy<=D<20Gy", "(PTV + 20mm) - PTV", "'Lt Lung' | 'Rt Lung'"]],
    )
    resample_mm: float = Field(
        default=2.0, ge=0.5, le=10, description="isotropic voxel for features [mm]", examples=[2.0]
    )
    bin_gy: float = Field(
        default=1.0,
        ge=0.01,
        le=10,
        description="fixed bin size [Gy], anchored at 0 Gy",
        examples=[1.0],
    )
    families: tuple[Family, ...] = Field(
        default=(
            "morphology", "statistics", "histogram", "ivh", "local", "glcm", "glrlm", "glszm",
            "gldzm", "neighborhood",
        ),
        description="feature families; neighborhood is NGTDM and NGLDM; autocorrelation is slow",
        examples=[["statistics", "glcm"]],
    )  # fmt: skip
    feature_exclude_types: tuple[str, ...] = Field(
        default=("EXTERNAL",),
        description="RT ROI Interpreted Types that get a DVH, but no features",
        examples=[["EXTERNAL"]],
    )
    min_voxels: int = Field(
        default=64, ge=1, description="fewer resampled voxels give a DVH only", examples=[64]
    )
    dose_at_percent: tuple[Percent, ...] = Field(
        default=(98.0, 95.0, 50.0, 2.0),
        description="D_x%: dose that the hottest x % receive at least",
        examples=[[98.0, 2.0]],
    )
    dose_at_cc: tuple[Gray, ...] = Field(
        default=(0.03,),
        description="D_xcc: dose that the hottest x cm3 receive at least",
        examples=[[0.03, 2.0]],
    )
    volume_at_gy: tuple[Gray, ...] = Field(
        default=(5.0, 10.0, 20.0, 30.0, 40.0),
        description="V_xGy: volume that receives x Gy or more, in % and cm3",
        examples=[[5.0, 20.0]],
    )
    geud_a: tuple[float, ...] = Field(
        default=(), description="exponents of the gEUD, not 0", examples=[[-10.0, 8.0]]
    )
    dvh_points: int = Field(
        default=200, ge=10, le=5000, description="points of a curve in dvh.csv", examples=[200]
    )
    prescription_gy: Gray | None = Field(
        default=None,
        description="prescription [Gy]; overrides the plan, for indices and limits in %",
        examples=[60.0],
    )
    dose: Literal["physical", "EQD2", "BED"] = Field(
        default="physical",
        description="what is evaluated; EQD2 and BED need the number of fractions",
        examples=["physical"],
    )
    alpha_beta_gy: Gray = Field(
        default=3.0, description="alpha/beta where no pattern matches [Gy]", examples=[3.0]
    )
    alpha_beta_by_roi: tuple[tuple[str, Gray], ...] = Field(
        default=(),
        description="(glob pattern, alpha/beta [Gy]); the first that matches counts",
        examples=[[["PTV*", 10.0]]],
    )
    fractions: int | None = Field(
        default=None, ge=1, description="fractions; overrides the plan", examples=[30]
    )
    sum_beams: bool = Field(
        default=False,
        description="add up BEAM doses where no PLAN dose is there, if all beams are",
        examples=[False],
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
    def _exponents_are_not_zero(self) -> Self:
        if 0 in self.geud_a:
            raise ValueError("geud_a: the gEUD has no exponent 0")
        return self
