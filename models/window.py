"""How a CT enters a contouring network: the voxels it is brought to and the intensity windows.

Training and inference both go through this module, so that the network meets the same world.
"""

from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

SOFT_HU: Final = (-160.0, 240.0)
"""Soft-tissue window."""
WIDE_HU: Final = (-1000.0, 1500.0)
"""Wide window: air and bone."""
BODY_HU: Final = -300.0
"""Above it counts as body."""
AIR_HU: Final = -1024.0
"""What lies outside the body and outside the image."""
LEAST: Final = 1e-8
"""No window is narrower: nnU-Net divides a constant image by this."""
FLAT: Final = 2
"""Dimensions of a network that contours the middle slice of a stack."""


Toward: TypeAlias = Literal["H", "F", "P", "A", "L", "R"]
"""The side of the patient that an index grows toward: head, feet, posterior, anterior, left,
right."""


class Scaling(BaseModel):
    """One intensity window with its own zero: ``(clip(HU) - subtract) / divide``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_hu: tuple[float, float]
    subtract: float
    divide: PositiveFloat

    def __call__(self, hu: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return HU as the network takes them; any shape."""
        scaled: NDArray[np.float32] = (np.clip(hu, *self.clip_hu) - self.subtract) / self.divide
        return scaled.astype(np.float32)


class ImageScaling(BaseModel):
    """A window that each image sets by its own values, as nnU-Net's two such schemes do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["deviation", "range"]
    """deviation: to mean 0 and standard deviation 1 (ZScoreNormalization); range: lowest value to
    0, highest to 1 (RescaleTo01Normalization)."""

    def of(self, values: NDArray[Any]) -> Scaling:
        """Return the window of one image.

        Parameters
        ----------
        values : ndarray
            All of the image as the scanner wrote it, not resampled and not cut to the body.
        """
        low, high = float(values.min()), float(values.max())
        if self.by == "range":
            return Scaling(clip_hu=(low, high), subtract=low, divide=max(high - low, LEAST))
        return Scaling(
            clip_hu=(low, high),
            subtract=float(values.mean(dtype=np.float64)),
            divide=max(float(values.std(dtype=np.float64)), LEAST),
        )


class Frame(BaseModel):
    """The voxels that a network sees: part of the model, written into its pack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: Literal[2, 3]
    """2: slices are channels and the answer is that of the middle one; 3: a volume."""
    voxel_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Millimeters between slices, rows and columns."""
    patch: tuple[PositiveInt, PositiveInt, PositiveInt]
    """Slices, rows and columns of one window."""
    offsets: tuple[int, ...] = ()
    """2.5D: the slices around the middle one that are channels, dense near it, sparse further."""
    field: tuple[PositiveInt, PositiveInt] | None
    """Rows and columns around the middle of the body in which organs are looked for; None: in all
    of the image."""
    axes: tuple[Toward, Toward, Toward] = ("H", "P", "L")
    """The sides of the patient that the network's slices, rows and columns grow toward."""
    scaling: Scaling | ImageScaling | None = None
    """How HU enter; None: in the soft and the wide window, everything outside the body as air."""

    @property
    def channels(self) -> int:
        """Return the number of input channels: soft and wide window, or a soft slice each."""
        if self.scaling is not None:
            return len(self.offsets) or 1
        return len(self.offsets) + 1 if self.dimensions == FLAT else 2

    @property
    def padding_hu(self) -> float:
        """Return what stands where a window reaches beyond the image: air, or the network's 0."""
        return AIR_HU if self.scaling is None else self.window_of_hu.subtract

    @property
    def window_of_hu(self) -> Scaling:
        """Return the window of HU, where it is known."""
        if not isinstance(self.scaling, Scaling):
            raise TypeError("the window depends on the image: call `for_image` first")
        return self.scaling

    def for_image(self, values: NDArray[Any]) -> "Frame":
        """Return the frame with the window that an image sets by its values, if it does.

        Parameters
        ----------
        values : ndarray
            See `ImageScaling.of`.
        """
        if not isinstance(self.scaling, ImageScaling):
            return self
        return self.model_copy(update={"scaling": self.scaling.of(values)})

    @property
    def slices(self) -> NDArray[np.int64]:
        """Return the slices of one input, counted from the first slice of its answer."""
        return np.array(self.offsets or range(self.patch[0]))


def windowed(hu: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    """Return HU mapped linearly to [-1, 1] over `window`, clipped; any shape."""
    low, high = window
    scaled: NDArray[np.float32] = np.clip((hu - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)
    return scaled.astype(np.float32)


def network_input(hu: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """Return the network's channels for patches of HU.

    Parameters
    ----------
    hu : ndarray, shape (N, slices, rows, columns)
        The slices are `Frame.slices`.
    frame : Frame

    Returns
    -------
    ndarray, float32
        (N, slices + 1, rows, columns): soft slices, then the wide middle one; or
        (N, 2, slices, rows, columns): soft and wide. With a scaling of its own: (N, slices, rows,
        columns) or (N, 1, slices, rows, columns).
    """
    if frame.scaling is not None:
        scaled = frame.window_of_hu(hu)
        return scaled if frame.dimensions == FLAT else scaled[:, None]
    soft = windowed(hu, SOFT_HU)
    if frame.dimensions != FLAT:
        return np.stack([soft, windowed(hu, WIDE_HU)], axis=1)
    middle = frame.offsets.index(0)
    return np.concatenate([soft, windowed(hu[:, middle : middle + 1], WIDE_HU)], axis=1)


def body_centre(hu: NDArray[Any]) -> tuple[float, float]:
    """Return the (row, column) of the middle of the body's box, in pixels.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, columns)
        CT with everything outside the body at air.
    """
    body = hu > BODY_HU
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    if rows.size == 0:
        return (hu.shape[1] - 1) / 2, (hu.shape[2] - 1) / 2
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
