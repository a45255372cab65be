"""Settings of the image quality pipeline."""

from typing import Literal

from pydantic import Field

from pipelines.report.settings import PageSettings

MOST_PARTS = 4
"""Thin slices that one thick slice may be parted into."""


class ImageQualitySettings(PageSettings):
    """Settings of the image quality pipeline."""

    task: Literal["noise_reduction", "super_resolution"] = Field(
        default="noise_reduction",
        description="noise_reduction: the same slices with less noise. super_resolution: each slice"
        " parted into thinner ones, whose average it stays.",
        examples=["super_resolution"],
    )
    method: Literal["classical", "network"] = Field(
        default="classical",
        description="classical: anisotropic diffusion, or cubic splines between slices; no weights."
        " network: the model pack; every image then carries a warning, since nothing here proves"
        " it at your site. Where its gates fail, classical.",
        examples=["network"],
    )
    model_pack: str | None = Field(
        default=None,
        min_length=1,
        description="The network: name of an installed pack (`rtnode models list`), or a path. "
        "Without one, the pack that comes with the node for the task.",
        examples=["ct-noise"],
    )
    max_change_hu: float = Field(
        default=60.0,
        gt=0,
        le=300,
        description="No voxel changes by more; in thin slices, none leaves the straight line "
        "between its neighbors by more.",
        examples=[40.0],
    )
    strength: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the change that is made: 1 takes most noise, 0.5 leaves half of it.",
        examples=[0.7],
    )
    slice_mm: float = Field(
        default=1.5,
        ge=0.5,
        le=5,
        description="super_resolution: slices at most this far apart are wanted [mm]. Each is "
        f"parted into a whole number, {MOST_PARTS} at most; finer series are left alone.",
        examples=[2.0],
    )
