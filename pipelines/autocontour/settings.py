"""Settings of the autocontour pipeline."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.autocontour.template import (
    ClassicalName,
    LearnedName,
    TemplateEntry,
    check_template,
)
from pipelines.report.settings import OutputSettings


class AutocontourSettings(OutputSettings):
    """Settings of the autocontour pipeline."""

    structures: tuple[ClassicalName, ...] = Field(
        default=("External", "Lung_L", "Lung_R", "Lungs", "Bones", "SpinalCanal"),
        min_length=1,
        description="Which structures are written, where they are found, beside those of the pack.",
        examples=[["External", "Lungs"]],
    )
    template: tuple[TemplateEntry, ...] = Field(
        default=(),
        description="In place of `structures`: what is written, in this order, with names, types, "
        "colors and derived structures; see docs/contouring.md.",
        examples=[
            [
                {"structure": "SpinalCanal", "color": "#ffcc00"},
                {"expression": "SpinalCanal + 5mm", "name": "SpinalCanal_05"},
            ]
        ],
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

    @model_validator(mode="after")
    def _template_holds(self) -> Self:
        check_template(self.template, pack=self.model_pack != "none")
        return self

    @property
    def entries(self) -> tuple[TemplateEntry, ...]:
        """The template, or what `structures` and the pack stand for, in the order of the table."""
        if self.template:
            return self.template
        learned = get_args(LearnedName) if self.model_pack != "none" else ()
        classical = (name for name in get_args(ClassicalName) if name in self.structures)
        return tuple(TemplateEntry(structure=name) for name in (*classical, *learned))
