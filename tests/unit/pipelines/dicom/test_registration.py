"""The matrix between two frames of reference: direction, chains, and what is refused."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipelines.api import InputRejected
from pipelines.dicom.registration import SPATIAL_REGISTRATION, rigid_between

CT, CBCT, OTHER = "1.2.3.1", "1.2.3.2", "1.2.3.3"
ANGLE = np.deg2rad(20)
MATRIX = np.array(
    [
        [np.cos(ANGLE), -np.sin(ANGLE), 0, 10.0],
        [np.sin(ANGLE), np.cos(ANGLE), 0, -20.0],
        [0, 0, 1, 30.0],
        [0, 0, 0, 1],
    ]
)
"""Asymmetric on purpose: its inverse differs in every element that matters."""
POINT = np.array([5.0, 6.0, 7.0, 1.0])


def _item(frame: str, *matrices: np.ndarray) -> Dataset:
    steps = []
    for matrix in matrices:
        step = Dataset()
        step.FrameOfReferenceTransformationMatrixType = "RIGID"
        step.FrameOfReferenceTransformationMatrix = [f"{v:.8g}" for v in matrix.ravel()]
        steps.append(step)
    registration = Dataset()
    registration.MatrixSequence = steps
    item = Dataset()
    item.FrameOfReferenceUID = frame
    item.MatrixRegistrationSequence = [registration]
    return item


def _object(registered: str, *items: Dataset) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = SPATIAL_REGISTRATION
    ds.FrameOfReferenceUID = registered
    ds.RegistrationSequence = list(items)
    return ds


def test_an_item_takes_points_of_its_frame_to_the_registered_frame() -> None:
    """PS3.3 C.20.2.1.1."""
    ds = _object(CT, _item(CBCT, MATRIX))

    found = rigid_between([ds], CBCT, CT)

    assert found is not None
    assert found @ POINT == pytest.approx(MATRIX @ POINT)


def test_the_other_way_round_is_the_inverse() -> None:
    ds = _object(CT, _item(CBCT, MATRIX))

    found = rigid_between([ds], CT, CBCT)

    assert found is not None
    assert found @ MATRIX @ POINT == pytest.approx(POINT)


def test_two_items_are_joined_through_the_registered_frame() -> None:
    shift = np.eye(4)
    shift[:3, 3] = (1, 2, 3)
    ds = _object(OTHER, _item(CBCT, MATRIX), _item(CT, shift))

    found = rigid_between([ds], CBCT, CT)

    assert found is not None
    assert found @ POINT == pytest.approx(MATRIX @ POINT - (1, 2, 3, 0))


def test_matrices_of_one_item_are_applied_in_their_order() -> None:
    shift = np.eye(4)
    shift[:3, 3] = (1, 2, 3)
    ds = _object(CT, _item(CBCT, MATRIX, shift))

    found = rigid_between([ds], CBCT, CT)

    assert found is not None
    assert found @ POINT == pytest.approx(shift @ MATRIX @ POINT)


def test_frames_that_no_object_joins_give_nothing() -> None:
    assert rigid_between([_object(CT, _item(CBCT, MATRIX))], OTHER, CT) is None
    assert rigid_between([], CBCT, CT) is None


def test_other_objects_are_passed_over() -> None:
    ds = _object(CT, _item(CBCT, MATRIX))
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.3"

    assert rigid_between([ds], CBCT, CT) is None


def test_contradicting_objects_are_refused() -> None:
    moved = MATRIX.copy()
    moved[0, 3] += 5

    with pytest.raises(InputRejected, match="contradict"):
        rigid_between([_object(CT, _item(CBCT, MATRIX)), _object(CT, _item(CBCT, moved))], CBCT, CT)


@pytest.mark.parametrize(
    "bad",
    [np.diag([1.1, 1, 1, 1]), np.diag([-1.0, 1, 1, 1]), np.eye(4)[:3], np.zeros((4, 4))],
    ids=["scaled", "mirrored", "too-short", "zero"],
)
def test_a_matrix_that_is_not_rigid_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputRejected):
        rigid_between([_object(CT, _item(CBCT, bad))], CBCT, CT)


def test_an_object_that_contradicts_itself_is_refused() -> None:
    """Two items of one frame, or a registered frame that is not itself, have no one meaning."""
    shift = np.eye(4)
    shift[:3, 3] = (1, 2, 3)
    twice = _object(CT, _item(CBCT, MATRIX), _item(CBCT, shift))
    displaced = _object(CT, _item(CT, shift), _item(CBCT, MATRIX))
    repeated = _object(CT, _item(CT, np.eye(4)), _item(CBCT, MATRIX), _item(CBCT, MATRIX))

    for ds in (twice, displaced):
        with pytest.raises(InputRejected, match="contradicts itself"):
            rigid_between([ds], CBCT, CT)
    assert rigid_between([repeated], CBCT, CT) == pytest.approx(MATRIX)
