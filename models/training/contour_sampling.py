"""Augmented patches of CT and organs, drawn from volumes that lie in memory.

Every patch is one affine map of the patient (rotation, scale, stretch, shift, mirroring with left
and right organs exchanged), evaluated once: nothing is interpolated twice.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.training.cases import Case
from models.training.contour_recipe import Recipe
from models.window import AIR_HU, FLAT, SOFT_HU, WIDE_HU, Frame, body_centre

SEEN_HU: Final = -900.0
"""Below it stays as it is: the training data is masked to air outside the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Patches to learn from."""

    image: Tensor
    """(N, channels, [slice,] row, column)."""
    target: Tensor
    """(N, [slice,] row, column), int64: 0 background, then organs."""
    drawn: Tensor
    """(N, classes), bool: whether a clinician drew that class in that patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Volume:
    """One patient, cropped to what is not air."""

    image: Tensor
    """(1, 1, slice, row, column), int16: HU above air."""
    labels: Tensor
    """The same shape, uint8."""
    spacing: NDArray[np.float64]
    centre_mm: NDArray[np.float64]
    """Middle of the volume in slices, of the body in plane."""
    classes: list[int]


class Sampler:
    """Draws augmented batches."""

    def __init__(self, cases: list[Case], organs: tuple[str, ...], recipe: Recipe) -> None:
        self.recipe = recipe
        self.organs = organs
        self.random = np.random.default_rng(recipe.seed)
        self.noise = torch.Generator().manual_seed(recipe.seed)
        self.volumes = [_cropped(case) for case in cases]
        self.other_side = torch.tensor(other_sides(organs))
        self.where = {
            label: found
            for label in range(1, len(organs) + 1)
            if (found := _slices_with(self.volumes, label))
        }

    def batch(self, size: int) -> Batch:
        """Return `size` patches."""
        images, targets, drawn = [], [], []
        for _ in range(size):
            image, target, classes = self._patch()
            images.append(image)
            targets.append(target)
            drawn.append(classes)
        hu = self._intensity(torch.stack(images))  # (N, slice, row, column)
        return Batch(
            image=channels(hu, self.recipe.frame),
            target=torch.stack(targets),
            drawn=torch.stack(drawn),
        )

    def state(self) -> dict[str, Any]:
        """Return the random state as JSON."""
        noise = self.noise.get_state().numpy().tobytes().hex()
        return {"numpy": self.random.bit_generator.state, "torch": noise}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.random.bit_generator.state = state["numpy"]
        noise = np.frombuffer(bytes.fromhex(state["torch"]), np.uint8)
        self.noise.set_state(torch.from_numpy(noise.copy()))

    def _patch(self) -> tuple[Tensor, Tensor, Tensor]:
        number, position = self._pick()
        volume = self.volumes[number]
        frame = self.recipe.frame
        mirrored = self.recipe.mirror and self.random.random() < 0.5  # noqa: PLR2004 (half)
        theta = self._theta(volume, position, mirrored=mirrored)
        image = _warp(volume.image, _grid(theta, frame, frame.slices), "bilinear") + AIR_HU
        answered = np.arange(frame.patch[0])
        target = _warp(volume.labels, _grid(theta, frame, answered), "nearest").round().long()
        classes = torch.zeros(len(self.organs) + 1, dtype=torch.bool)
        classes[[0, *volume.classes]] = True
        if mirrored:
            target, classes = self.other_side[target], classes[self.other_side]
        return image, target[0] if frame.dimensions == FLAT else target, classes

    def _pick(self) -> tuple[int, float]:
        """Return a volume and the slice position [mm] that the patch is centred on."""
        random = self.random
        reach = self.recipe.frame.patch[0] * self.recipe.frame.voxel_mm[0] / 4  # mm
        if random.random() < self.recipe.organ_share:
            label = list(self.where)[random.integers(len(self.where))]
            number, slices = self.where[label][random.integers(len(self.where[label]))]
            middle = float(random.choice(slices))
        else:
            number = int(random.integers(len(self.volumes)))
            middle = float(random.integers(self.volumes[number].image.shape[2]))
        spacing = self.volumes[number].spacing[0]
        return number, middle * spacing + random.uniform(-reach, reach)

    def _theta(self, volume: _Volume, position: float, *, mirrored: bool) -> Tensor:
        """Return the (3, 4) map from patch to volume in grid_sample's units, axes (x, y, z)."""
        recipe, random = self.recipe, self.random
        turn = rotation(
            random.uniform(-1, 1) * recipe.rotation_rad,
            random.uniform(-1, 1) * recipe.tilt_rad,
            random.uniform(-1, 1) * recipe.tilt_rad,
        )
        zoom = math.exp(random.uniform(-1, 1) * math.log1p(recipe.scale))
        stretch = 1 + random.uniform(-1, 1, 3) * recipe.anisotropy
        side = np.array([1.0, 1.0, -1.0 if mirrored else 1.0])
        reach = np.array(recipe.frame.patch) * np.array(recipe.frame.voxel_mm) / 2
        linear = turn @ np.diag(zoom * stretch * side * reach)  # patch unit -> mm
        shift = random.uniform(-recipe.shift_mm, recipe.shift_mm, 3) * (0, 1, 1)
        centre = np.array([position, *volume.centre_mm[1:]]) + shift
        size = np.array(volume.image.shape[2:])
        linear = linear / (volume.spacing * size / 2)[:, None]
        offset = 2 * (centre / volume.spacing + 0.5) / size - 1
        matrix = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
        return torch.from_numpy(np.ascontiguousarray(matrix, np.float32))

    def _intensity(self, hu: Tensor) -> Tensor:
        recipe = self.recipe

        def uniform(low: float, high: float) -> Tensor:
            values = self.random.uniform(low, high, (hu.shape[0], 1, 1, 1))
            return torch.from_numpy(values.astype(np.float32))

        noise = torch.randn(hu.shape, generator=self.noise) * uniform(0, recipe.noise_hu)
        gain = 1 + uniform(-recipe.gain, recipe.gain)
        changed = hu * gain + uniform(-recipe.offset_hu, recipe.offset_hu) + noise
        return torch.where(hu > SEEN_HU, changed, hu)


def channels(hu: Tensor, frame: Frame) -> Tensor:
    """Return `models.window.network_input` of a tensor (N, slice, row, column)."""

    def window(x: Tensor, low: float, high: float) -> Tensor:
        return ((x - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0)

    soft = window(hu, *SOFT_HU)
    if frame.dimensions != FLAT:
        return torch.stack([soft, window(hu, *WIDE_HU)], dim=1)
    middle = frame.offsets.index(0)
    return torch.cat([soft, window(hu[:, middle : middle + 1], *WIDE_HU)], dim=1)


def other_sides(organs: tuple[str, ...]) -> list[int]:
    """Return the class that each class becomes in the mirror: ``_L`` and ``_R`` change places."""
    ends = {"_L": "_R", "_R": "_L"}
    names = ["", *organs]
    mirrored = [n[:-2] + ends[n[-2:]] if n[-2:] in ends else n for n in names]
    for name, other in zip(names, mirrored, strict=True):
        if other not in names:
            raise ValueError(f"{name} has no counterpart on the other side: do not mirror")
    return [names.index(name) for name in mirrored]


def rotation(about_slice: float, about_row: float, about_column: float) -> NDArray[np.float64]:
    """Return the (3, 3) rotation of (slice, row, column) by three angles [rad]."""
    turn = np.eye(3)
    for axis, angle in enumerate((about_slice, about_row, about_column)):
        a, b = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = math.cos(angle)
        step[a, b], step[b, a] = -math.sin(angle), math.sin(angle)
        turn = turn @ step
    return turn


def _grid(theta: Tensor, frame: Frame, slices: NDArray[np.int64]) -> Tensor:
    """Return where `slices` of a patch lie: (slices, rows, columns, xyz) for grid_sample."""
    wanted = (slices, *(np.arange(size) for size in frame.patch[1:]))
    z, y, x = (
        torch.from_numpy(((2 * at + 1) / size - 1).astype(np.float32))  # -1 to 1 over the patch
        for at, size in zip(wanted, frame.patch, strict=True)
    )
    return (
        z[:, None, None, None] * theta[:, 2]
        + y[None, :, None, None] * theta[:, 1]
        + x[None, None, :, None] * theta[:, 0]
        + theta[:, 3]
    )


def _warp(volume: Tensor, grid: Tensor, mode: str) -> Tensor:
    warped: Tensor = nn.functional.grid_sample(
        volume.float(), grid[None], mode=mode, align_corners=False
    )
    return warped[0, 0]


def _cropped(case: Case) -> _Volume:
    seen = (case.hu > AIR_HU) | (case.labels > 0)
    box = tuple(
        slice(found[0], found[-1] + 1)
        for axis in range(3)
        if len(found := np.flatnonzero(seen.any(axis=tuple(a for a in range(3) if a != axis))))
    )
    hu, labels = case.hu[box], case.labels[box]
    spacing = np.array(case.spacing)
    middle = np.array([(hu.shape[0] - 1) / 2, *body_centre(hu)])
    return _Volume(
        image=torch.from_numpy(np.maximum(hu, AIR_HU).astype(np.int16) - np.int16(AIR_HU))[
            None, None
        ],
        labels=torch.from_numpy(np.ascontiguousarray(labels))[None, None],
        spacing=spacing,
        centre_mm=middle * spacing,
        classes=list(case.drawn),
    )


def _slices_with(volumes: list[_Volume], label: int) -> list[tuple[int, NDArray[np.int64]]]:
    found = []
    for number, volume in enumerate(volumes):
        slices = np.flatnonzero((volume.labels == label).numpy().any(axis=(0, 1, 3, 4)))
        if len(slices) and label in volume.classes:
            found.append((number, slices))
    return found
