"""Settings of the dose radiomics pipeline; each one that can change a number goes into the SR."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.dose_radiomics.metric_names import wanted
from pipelines.radiomics import families as known
from pipelines.radiomics.families import Family
from pipelines.radiomics.filter_settings import FilterSettings
from pipelines.report.settings import OutputSettings

Percent = Annotated[float, Field(gt=0, le=100)]
Gray = Annotated[float, Field(gt=0)]


def _pattern(text: str) -> str:
    """Return `text` if it can be a pattern; ``/.../`` must be a regular expression."""
    if not text.strip():
        raise ValueError("a pattern must not be empty")
    body = text.removesuffix("i")
    if text.startswith("/") and body.endswith("/") and len(body) > 1:
        try:
            re.compile(body[1:-1])
        except re.error as error:
            raise ValueError(f"{text} is no regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""An ROI name in any spelling, a glob pattern, or /regex/; see `patterns.matches`."""


class MetricRule(BaseModel):
    """Dose metrics that some ROIs get beside the general ones."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    rois: tuple[Pattern, ...] = Field(
        min_length=1,
        description="names, glob patterns or /regex/; a derived ROI goes by its expression",
        examples=[["PTV*", "/^CTV/"]],
    )
    metrics: tuple[str, ...] = Field(
        min_length=1,
        description="names after TG-263, see docs/dose-radiomics.md",
        examples=[["D98%", "V95%", "D0.03cc", "gEUD(-10)", "CN_Paddick"]],
    )

    @field_validator("metrics")
    @classmethod
    def _names_are_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            wanted(name)
        return names


class DoseRadiomicsSettings(OutputSettings, FilterSettings):
    """Settings of the dose radiomics pipeline."""

    rois: tuple[Pattern, ...] = Field(
        default=("*",),
        description="ROIs to evaluate: names, glob patterns or /regex/, whatever their case",
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
        default=known.DEFAULT,
        description=known.TOLD,
        examples=[["statistics", "glcm"]],
    )
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
    metrics_by_roi: tuple[MetricRule, ...] = Field(
        default=(),
        description="more metrics for ROIs by pattern, every rule that fits; e.g. {rois: [PTV*], "
        "metrics: [D98%, V95%, CN_Paddick]}",
        examples=[[{"rois": ["PTV*"], "metrics": ["V95%", "D0.03cc[%]", "gEUD(-10)"]}]],
    )
    dvh_points: int = Field(
        default=200, ge=10, le=5000, description="points of a curve in dvh.csv", examples=[200]
    )
    prescription_gy: Gray | None = Field(
        default=None,
        description="prescription [Gy]; overrides the plan, for indices and limits in %",
        examples=[60.0],
    )
    prescriptions: tuple[tuple[Pattern, Gray], ...] = Field(
        default=(),
        description="(pattern, prescription [Gy]) for targets; the first that fits counts, before "
        "prescription_gy and the plan",
        examples=[[["PTV70", 70.0], ["PTV56*", 56.0]]],
    )
    dose: Literal["physical", "EQD2", "BED"] = Field(
        default="physical",
        description="what is evaluated; EQD2 and BED need the number of fractions",
        examples=["physical"],
    )
    alpha_beta_gy: Gray = Field(
        default=3.0, description="alpha/beta where no pattern matches [Gy]", examples=[3.0]
    )
    alpha_beta_by_roi: tuple[tuple[Pattern, Gray], ...] = Field(
        default=(),
        description="(pattern, alpha/beta [Gy]); the first that fits counts",
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
    dvh_object: bool = Field(
        default=False,
        description="Also send the DVHs as RT Dose with DVH Sequence, for readers without SR.",
        examples=[True],
    )
    pictures: bool = Field(
        default=True,
        description="draw the page: dose on the CT, DVH, tables as HTML, PNG and PDF; report_pdf "
        "and report_image need it",
        examples=[True],
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
    def _what_is_sent_is_drawn(self) -> Self:
        for name in ("report_pdf", "report_image"):
            if getattr(self, name) and not self.pictures:
                raise ValueError(f"{name}: the page to be sent is not drawn; set pictures to true")
        return self

    @model_validator(mode="after")
    def _exponents_are_not_zero(self) -> Self:
        if 0 in self.geud_a:
            raise ValueError("geud_a: the gEUD has no exponent 0")
        return self

    @model_validator(mode="after")
    def _names_fit_into_codes(self) -> Self:
        for values, form in (
            (self.dose_at_percent, "D{!r}%"),
            (self.dose_at_cc, "D{!r}cc"),
            (self.volume_at_gy, "V{!r}Gy[cc]"),
            (self.geud_a, "gEUD({!r})"),
        ):
            for value in values:
                wanted(form.format(value))
        return self
