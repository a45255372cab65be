"""The OpenKBP head-and-neck training pack: reading, orientation, and the split by patient.

Babier et al., "OpenKBP: The open-access knowledge-based planning grand challenge", Med Phys 2021;
MIT licence. One npz a patient inside a tar: ``ct`` int16 = HU + 1024, ``lab`` uint8 label map,
``have`` the labels that a clinician drew, ``vd`` the voxel size; all 128^3. The source does not
state its axes. The masks do: axis 0 grows to posterior, axis 1 to the patient's left, axis 2 to
the feet. Three anatomical facts guard that reading for each patient, so that a mirrored or
flipped volume can never be trained on.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.training.cases import Case

ORGANS: Final = (
    "Brainstem",
    "SpinalCord",
    "Parotid_L",
    "Parotid_R",
    "Bone_Mandible",
    "Larynx",
    "Esophagus",
)
"""TG-263 names of labels 1 to 7."""

NEARLY_EMPTY: Final = frozenset({"pt_143"})
"""Holds 241 labelled voxels: left out of training and test."""

SHARED_WITH_DEV_PACK: Final = frozenset({"pt_1", "pt_2"})
"""Also in the development data, so always held out."""


def held_out(name: str) -> bool:
    """Return whether a patient is kept for testing: fixed for ever, by hash of the name."""
    if name in SHARED_WITH_DEV_PACK:
        return True
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5 == 0


def read_cases(archive: Path) -> Iterator[Case]:
    """Yield every usable patient of the archive in name order.

    Raises
    ------
    ValueError
        If a patient contradicts the orientation that the masks of all others show.
    """
    with tarfile.open(archive) as tar:
        members = {
            Path(m.name).stem.removeprefix("train_"): m
            for m in tar.getmembers()
            if m.name.endswith(".npz")
        }
        for name in sorted(members):
            if name in NEARLY_EMPTY:
                continue
            member = tar.extractfile(members[name])
            if member is None:
                continue
            with np.load(io.BytesIO(member.read())) as data:
                yield _case(name, dict(data))


def _case(name: str, data: dict[str, NDArray[Any]]) -> Case:
    labels = _to_lps(data["lab"].astype(np.uint8))
    _check_orientation(name, labels)
    voxel = [float(v) for v in data["vd"]]  # (row, column, slice) of the source axes
    return Case(
        name=name,
        hu=_to_lps(data["ct"].astype(np.int16)) - np.int16(1024),
        labels=labels,
        drawn=tuple(int(v) for v in np.atleast_1d(data["have"])),
        spacing=(voxel[2], voxel[0], voxel[1]),
    )


def _to_lps(volume: NDArray[Any]) -> NDArray[Any]:
    """Source axes (posterior, left, feet) -> (slice to the head, row, column)."""
    return np.ascontiguousarray(np.moveaxis(volume, 2, 0)[::-1])


def _check_orientation(name: str, labels: NDArray[np.uint8]) -> None:
    """Check left, posterior and cranial by organs whose order no anatomy reverses."""
    centre = {k: np.argwhere(labels == k).mean(axis=0) for k in range(1, 8) if (labels == k).any()}
    facts = (
        (3, 4, 2, "the left parotid lies to the left of the right one"),
        (2, 5, 1, "the spinal cord lies behind the mandible"),
        (1, 6, 0, "the brainstem lies above the larynx"),
    )
    for greater, smaller, axis, sentence in facts:
        if (
            greater in centre
            and smaller in centre
            and centre[greater][axis] <= centre[smaller][axis]
        ):
            raise ValueError(f"{name}: expected that {sentence}")
