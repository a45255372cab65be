"""What the importer and its converter say to each other, as JSON."""

from pydantic import BaseModel, ConfigDict

from models.foreign.shapes import Shape


class Order(BaseModel):
    """What is to be converted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape
    checkpoints: tuple[str, ...]
    test_size: tuple[int, ...]
    """Spatial size of the self-test."""
    out: str
    """Existing folder of the pack; it and the one around it are all that may be written."""
    trust: bool
    memory_gb: int
    cpu_s: int


class Answer(BaseModel):
    """What became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refused: str = ""
    """Why nothing was converted; empty where all was."""
    differences: tuple[float, ...] = ()
    """Largest difference of a logit between torch and ONNX Runtime, a checkpoint."""
    parameters: int = 0
