"""What a pipeline may send besides its own result: the report page, and the masks."""

from pydantic import BaseModel, ConfigDict, Field


class PageSettings(BaseModel):
    """Settings that all pipelines share; a base class of their settings."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    report_pdf: bool = Field(
        default=False,
        description="Also send the report as Encapsulated PDF, for viewers without SR or RT.",
        examples=[True],
    )
    report_image: bool = Field(
        default=False,
        description="Also send the first page of the report as Secondary Capture, for viewers that"
        " show images alone.",
        examples=[True],
    )


class OutputSettings(PageSettings):
    """Settings of the pipelines that know regions as masks."""

    segmentation: bool = Field(
        default=False,
        description="Also send the masks as DICOM Segmentation.",
        examples=[True],
    )
