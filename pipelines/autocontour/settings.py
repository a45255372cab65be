"""Settings of the autocontour pipeline."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

OrganName = Literal["External", "Lung_L", "Lung_R", "Lungs", "Bones", "SpinalCanal"]


class AutocontourSettings(BaseModel):
    """Settings of the autocontour pipeline."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    structures: tuple[OrganName, ...] = Field(
        default=("External", "Lung_L", "Lung_R", "Lungs", "Bones", "SpinalCanal"),
        min_length=1,
        description="Which structures are written, where they are found.",
        examples=[["External", "Lungs"]],
    )
    model_pack: Literal["none", "headneck-openkbp"] = Field(
        default="none",
        description="Learned organs to add: none, or the head-and-neck pack that comes with the "
        "node (brainstem, cord, parotids, mandible, larynx, esophagus). Read its CARD.md first.",
        examples=["none"],
    )
    holes: Literal["keyhole", "nested"] = Field(
        default="keyhole",
        description="How holes are written: joined to their outline by a channel of zero width, "
        "which every planning system reads, or as contours inside contours.",
        examples=["keyhole"],
    )
    max_points: int = Field(
        default=1000,
        ge=50,
        le=100_000,
        description="Most points of one contour; longer ones are split, never cut short.",
        examples=[1000],
    )
    label: str = Field(
        default="AUTO",
        min_length=1,
        max_length=16,
        pattern=r"^[A-Za-z0-9 _.-]+$",
        description="Structure Set Label: what a planning system lists the file under.",
        examples=["AUTO"],
    )
    work_grid_mm: float = Field(
        default=2.0,
        ge=1.0,
        le=5.0,
        description="Voxel size that structures are found at; surfaces are placed between voxels.",
        examples=[2.0],
    )
