"""Model packs: a folder with weights, a manifest that fixes every byte, a self-test and a card.

One format for all pipelines::

    model.json          manifest: what it is, what it takes and gives, licence, measured accuracy
    weights.onnx        what the node runs on a CPU
    weights.safetensors the same weights for torch: training, GPU, reference result
    weights-2.onnx ...  further trained networks to be averaged, where the manifest says so
    test/input.npz      a small input
    test/expected.npz   what torch answered to it
    CARD.md             for people

Nothing in a pack is ever unpickled. A pack whose bytes differ from its manifest is refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from typing_extensions import TypeVar, override

from models.window import Frame

MANIFEST: Final = "model.json"
PACKS: Final = Path(__file__).parent / "packs"
"""Where the packs lie that come with the node."""
LOGIT_TOLERANCE: Final = 0.02
"""Largest difference of a logit from what torch answered, in the self-test."""
HU_TOLERANCE: Final = 0.002
"""The same for a synthetic CT, HU / 1000."""
TEST_STEP: Final = 4
"""Rows and columns of the answer that the self-test keeps: every fourth."""


class PackRefused(Exception):
    """A pack is missing, changed, or not fit to run; the message says which and why."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackFile(_Part):
    """One file of the pack, fixed by content."""

    path: str = Field(pattern=r"^[A-Za-z0-9_./-]+$")
    bytes: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class DataSource(_Part):
    """A data set the weights were trained on."""

    name: str
    licence: str
    source: str
    patients: int


class Output(_Part):
    """One class of a contouring network."""

    index: int
    name: str
    """TG-263 name."""
    components: Literal["largest", "tenth"] = "largest"
    """Which connected parts are kept: the largest, or all of at least a tenth of it."""
    volume_ml: tuple[float, float] | None = None
    """2.5 % and 97.5 % quantile of the training data: the plausible range; None: not known."""


class PackManifest(_Part):
    """What ``model.json`` says of every kind of pack."""

    schema_version: Literal[1]
    id: str = Field(pattern=r"^[a-z0-9_-]+$")
    version: str
    title: str
    kind: str
    body_region: str
    weights_licence: str
    data: tuple[DataSource, ...]
    intended_use: str
    contraindications: str
    metrics: dict[str, dict[str, float]]
    """Measured on held-out patients: output or case name -> measure -> value."""
    training: dict[str, object]
    files: tuple[PackFile, ...]

    @property
    def tolerance(self) -> float:
        """Return the largest difference from what torch answered, in the self-test."""
        return LOGIT_TOLERANCE


class Manifest(PackManifest):
    """The contents of ``model.json`` of a contouring pack."""

    kind: Literal["contour"]
    frame: Frame
    """What the network sees."""
    spacing_mm: tuple[float, float]
    """Slice spacings seen in training."""
    outputs: tuple[Output, ...]
    members: PositiveInt = 1
    """Trained networks, whose answers are averaged."""
    other_frames: tuple[Frame, ...] = ()
    """What the second and further members see; empty: what the first does."""

    @model_validator(mode="after")
    def _fit_together(self) -> "Manifest":
        if self.other_frames and len(self.other_frames) != self.members - 1:
            raise ValueError("other_frames must name every member but the first")
        if not all(_same_grid(self.frame, other) for other in self.other_frames):
            raise ValueError("the members of a pack must see the same voxels")
        return self

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Return what each member sees."""
        return (self.frame, *(self.other_frames or (self.frame,) * (self.members - 1)))


class InputContract(_Part):
    """What a synthetic CT network may be shown; anything else is refused before it runs."""

    modality: Literal["CT"]
    pixel_mm: tuple[float, float]
    """Least and greatest pixel; the caller resamples into it where it can."""
    slice_mm: tuple[float, float]
    hu: tuple[float, float]
    """Values are clipped to this range."""
    regions: tuple[str, ...] = ()
    """Parts of the body (`pipelines.imaging.region.Region`) that it may be shown; none: any."""


class Familiar(_Part):
    """What the training images look like: a Gaussian over explainable features (`sct_ood`)."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """Inverse covariance, features x features."""
    warn: float
    """Squared Mahalanobis distance above which the input is unusual."""
    refuse: float
    """Above it the network is not run."""


class SyntheticCtManifest(PackManifest):
    """The contents of ``model.json`` of a pack that turns CBCT into synthetic CT."""

    kind: Literal["synthetic-ct"]
    slices: int
    """Neighbouring slices the network takes."""
    contract: InputContract
    familiar: Familiar
    gates: dict[str, tuple[float, float]]
    """Gate name -> (PASS ends, FAIL begins), where they differ from the usual limits."""

    @property
    @override
    def tolerance(self) -> float:
        """Return the largest difference from what torch answered, HU / 1000."""
        return HU_TOLERANCE


class ImageQualityManifest(PackManifest):
    """The contents of ``model.json`` of a pack that lowers noise or parts thick slices."""

    kind: Literal["noise-reduction", "super-resolution"]
    slices: int
    """Neighbouring slices the network takes."""
    factor: Literal[1, 2]
    """Slices that it makes of one."""
    contract: InputContract
    gates: dict[str, tuple[float, float]]
    """Gate name -> (PASS ends, FAIL begins), where they differ from the usual limits."""

    @property
    @override
    def tolerance(self) -> float:
        """Return the largest difference from what torch answered, HU / 1000."""
        return HU_TOLERANCE


_AnyManifest = Annotated[
    Manifest | SyntheticCtManifest | ImageQualityManifest, Field(discriminator="kind")
]
_READER: TypeAdapter[Manifest | SyntheticCtManifest | ImageQualityManifest] = TypeAdapter(
    _AnyManifest
)
M = TypeVar("M", bound=PackManifest, default=Manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack(Generic[M]):
    """A pack on disk whose every byte agrees with its manifest."""

    folder: Path
    manifest: M
    sha256: str
    """Of the manifest, which fixes all other files: the identity of the model."""

    @property
    def label(self) -> str:
        """Return id and version, for provenance."""
        return f"{self.manifest.id} {self.manifest.version}"


@overload
def load_pack(folder: Path) -> Pack: ...
@overload
def load_pack(folder: Path, kind: type[M]) -> Pack[M]: ...
def load_pack(folder: Path, kind: type[PackManifest] = Manifest) -> Pack[Any]:
    """Read and check a pack of one kind: a contouring pack where nothing else is said.

    `PackManifest` as the kind takes all of them.

    Raises
    ------
    PackRefused
        If the manifest is missing, invalid or of another kind, or a file is missing or differs.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise PackRefused(f"no model pack at {folder.name}: {error.strerror}") from error
    try:
        manifest = _READER.validate_json(text)
    except ValidationError as error:
        raise PackRefused(
            f"{folder.name}/{MANIFEST}: {error.error_count()} invalid entries"
        ) from error
    if not isinstance(manifest, kind):
        raise PackRefused(f"{manifest.id} is a pack of the kind {manifest.kind}")
    root = folder.resolve()
    for part in manifest.files:
        path = (root / part.path).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise PackRefused(f"{manifest.id}: {part.path} is missing")
        if file_sha256(path) != part.sha256:
            raise PackRefused(f"{manifest.id}: {part.path} differs from the manifest")
    return Pack(folder=root, manifest=manifest, sha256=hashlib.sha256(text).hexdigest())


def _same_grid(a: Frame, b: Frame) -> bool:
    """Return whether the voxels of two frames lie in the same places, whatever their fields."""
    if (a.voxel_mm, a.axes) != (b.voxel_mm, b.axes) or (a.scaling is None) != (b.scaling is None):
        return False
    if a.field is None or b.field is None:
        return a.field == b.field
    return all((x - y) % 2 == 0 for x, y in zip(a.field, b.field, strict=True))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def member_file(name: str, member: int) -> str:
    """Return the name of a file, or an array in one, that belongs to one of several trainings."""
    stem, dot, suffix = name.partition(".")
    return name if member == 1 else f"{stem}-{member}{dot}{suffix}"


def self_test_vectors(
    pack: Pack[M], member: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the input (N, channels, row, column) and every fourth row and column of the logits.

    Members that see the same are given the same input.
    """
    with np.load(pack.folder / "test/input.npz") as given:
        own = member_file("batch", member)
        batch = given[own if own in given else "batch"].astype(np.float32)
    with np.load(pack.folder / "test/expected.npz") as expected:
        return batch, expected[member_file("logits", member)].astype(np.float32)
