"""Spatial Registration objects: the matrix between two frames of reference, patient LPS mm.

Each item of the Registration Sequence takes points of its own frame of reference to the
*registered* frame, that of the object itself (PS3.3 C.20.2.1.1); several matrices of one item
are applied in the order of their items. Which way round a caller needs it is decided here only.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.api import InputRejected
from pipelines.dicom.read import refusing_damage, text, tolerant

SPATIAL_REGISTRATION: Final = "1.2.840.10008.5.1.4.1.1.66.1"
"""Spatial Registration Storage (PS3.4 B.5)."""
RIGID_TOLERANCE: Final = 1e-3
"""Largest element of ``R R^T - 1`` of a rigid matrix; the values are written with few digits."""
AGREEMENT: Final = 1e-2
"""Largest difference between elements (mm for the shift) of two registrations that agree."""

Matrix = NDArray[np.float64]


def rigid_between(registrations: Iterable[Dataset], source: str, target: str) -> Matrix | None:
    """Return the rigid matrix that takes points of frame `source` to frame `target`.

    Parameters
    ----------
    registrations : data sets of Spatial Registration objects
        Others are passed over.
    source, target : str
        Frame of Reference UIDs.

    Returns
    -------
    ndarray, shape (4, 4), patient LPS mm, or None
        None where no object joins the two frames.

    Raises
    ------
    InputRejected
        If a matrix is malformed or not rigid, or two objects contradict each other.
    """
    found: Matrix | None = None
    for ds in registrations:
        if text(ds, "SOPClassUID") != SPATIAL_REGISTRATION:
            continue
        with tolerant(), refusing_damage():
            to_registered = _to_registered(ds)
        if source not in to_registered or target not in to_registered:
            continue
        matrix = np.linalg.inv(to_registered[target]) @ to_registered[source]
        if found is not None and np.abs(matrix - found).max() > AGREEMENT:
            raise InputRejected(
                "two spatial registrations contradict each other",
                hint="delete the registration that is no longer valid and send the rest again",
            )
        found = matrix
    return found


def _to_registered(ds: Dataset) -> dict[str, Matrix]:
    """Return frame of reference UID -> matrix to the registered frame."""
    registered = text(ds, "FrameOfReferenceUID")
    matrices = {registered: np.eye(4)}
    for item in ds.get("RegistrationSequence") or []:
        frame = text(item, "FrameOfReferenceUID")
        if not frame:
            continue
        total = np.eye(4)
        for registration in item.get("MatrixRegistrationSequence") or []:
            for step in registration.get("MatrixSequence") or []:
                total = _rigid(step) @ total
        if frame in matrices and np.abs(total - matrices[frame]).max() > AGREEMENT:
            raise InputRejected(
                "a spatial registration contradicts itself: one frame of reference, two matrices",
                hint="export the registration again, or delete it: then the images are registered",
            )
        matrices[frame] = total
    return matrices


def _rigid(step: Dataset) -> Matrix:
    """Return one matrix, checked: 16 finite numbers, bottom row 0 0 0 1, a proper rotation."""
    try:
        values = [float(v) for v in step.FrameOfReferenceTransformationMatrix]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputRejected("a spatial registration has no readable matrix") from error
    if len(values) != 16 or not np.isfinite(values).all():  # noqa: PLR2004 (4 x 4)
        raise InputRejected("a spatial registration has a malformed matrix")
    matrix = np.array(values, dtype=np.float64).reshape(4, 4)
    rotation = matrix[:3, :3]
    deviation = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if deviation > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise InputRejected(
            f"a spatial registration is not rigid (off by {deviation:.3f})",
            hint="send a rigid registration, or none: then the images are registered here",
        )
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > RIGID_TOLERANCE:
        raise InputRejected("a spatial registration has a matrix with a wrong last row")
    return matrix
