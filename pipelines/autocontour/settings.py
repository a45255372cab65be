"""Settings of the autocontour pipeline."""

from collections.abc import Collection
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
    model_pack: str = Field(
        default="none",
        pattern=r"^[a-z0-9_-]+$",
        description="Installed model pack whose organs are added, by its name (`rtnode models "
        "list`); none: no learned organs. The node comes with headneck-openkbp. Read a pack's "
        "CARD.md first.",
        examples=["none"],
    )
    holes: Literal["keyhole", "nested", "xor"] = Field(
        default="keyhole",
        description="How holes are written: joined to their outline by a channel of zero width, "
        "which every planning system reads, as contours inside contours, or as those of the type "
        "CLOSEDPLANAR_XOR.",
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

    def entries(self, learned: Collection[str]) -> tuple[TemplateEntry, ...]:
        """Return the template, or what `structures` and the pack stand for, in the table's order.

        Parameters
        ----------
        learned
            Names that the pack finds; none without a pack.
        """
        if self.template:
            return self.template
        classical = (name for name in get_args(ClassicalName) if name in self.structures)
        found = (name for name in get_args(LearnedName) if name in learned)
        return tuple(TemplateEntry(structure=name) for name in (*classical, *found))
