"""Settings of the synthetic CT pipeline."""

from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.report.settings import PageSettings


class ScannerRule(BaseModel):
    """Scanners by what their images say of them; `*` stands for any text, case is ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    manufacturer: str = Field(
        min_length=1,
        description="Manufacturer (0008,0070).",
        examples=["Varian*"],
    )
    model: str = Field(
        min_length=1,
        description="ManufacturerModelName (0008,1090).",
        examples=["*HyperSight*"],
    )

    def matches(self, manufacturer: str, model: str) -> bool:
        """Return whether an image that states both comes from such a scanner."""
        return fnmatchcase(manufacturer.upper(), self.manufacturer.upper()) and fnmatchcase(
            model.upper(), self.model.upper()
        )


class SyntheticCTSettings(PageSettings):
    """Settings of the synthetic CT pipeline."""

    passthrough: tuple[ScannerRule, ...] = Field(
        default=(),
        description="Scanners whose cone-beam CT is CT-grade (HyperSight class): its values are "
        "kept, judged by the gates and sent on; where they fail, the usual methods follow. None by "
        "default: what these scanners write into the two attributes must be looked up at the site.",
        examples=[[{"manufacturer": "Varian*", "model": "*HyperSight*"}]],
    )

    method: Literal["auto", "network", "hybrid", "histmatch", "lut"] = Field(
        default="auto",
        description="auto: the network where validation_report accepts it, else hybrid when the "
        "planning CT is there, else lut. network: the model pack even without a validation, every "
        "image then carries a warning. hybrid: the planning CT deformed onto the CBCT where both "
        "agree; where its gates fail, histmatch. histmatch: histogram and shading matched to the "
        "planning CT, and no voxel of it. lut: tissue look-up without planning CT.",
        examples=["auto"],
    )
    model_pack: str = Field(
        default="sct-pelvis",
        min_length=1,
        description="The network: name of an installed pack (`rtnode models list`), or a path.",
        examples=["sct-pelvis"],
    )
    validation_report: str | None = Field(
        default=None,
        description="The report of `rtnode sct validate` that switches the network on for `auto`. "
        "It names the model; with another model it counts as none.",
        examples=["/etc/rtnode/sct-validation.json"],
    )
    outside_fov: Literal["air", "prior"] = Field(
        default="air",
        description="What lies outside the CBCT's field of view: air, or the planning CT in place.",
        examples=["air"],
    )
    couch: Literal["keep", "remove"] = Field(
        default="keep",
        description="Keep what the CBCT shows outside the body, or set it to air.",
        examples=["remove"],
    )
    hu_curve_of: Literal["cbct", "planning_ct", "none"] = Field(
        default="cbct",
        description="Whose KVP and station name the series carries: planning systems may choose "
        "their HU curve by them. Without a planning CT, planning_ct means none.",
        examples=["planning_ct"],
    )
    description_prefix: str = Field(
        default="sCT",
        min_length=1,
        max_length=24,
        pattern=r"^[ -\[\]-~]+$",
        description="First words of SeriesDescription; method and verdict follow.",
        examples=["sCT thorax"],
    )
    contours: Literal["none", "rigid", "deformable"] = Field(
        default="none",
        description="Also send the contours of the planning CT on the synthetic CT, as an "
        "unapproved RTSTRUCT: moved rigidly as the planning CT was placed, or deformed with it "
        "onto today's image. Needs the planning CT in place and its RTSTRUCT.",
        examples=["deformable"],
    )
    deformation_object: bool = Field(
        default=False,
        description="Also send the deformation as Deformable Spatial Registration. Only with "
        "contours: deformable.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _deformation_is_there(self) -> Self:
        if self.deformation_object and self.contours != "deformable":
            raise ValueError("deformation_object needs contours: deformable")
        return self
