"""Deformable Spatial Registration objects (PS3.3 A.39.2): a displacement field and a matrix.

The object says how to *sample*: a point of the registered frame of reference, its own, goes to the
source frame by ``source = post @ (pre @ point + vector(point))`` (PS3.3 C.20.3.1.1, equation
C.20.3-1). That is the direction in which images are resampled, not the one in which tissue moves.
Here `pre` is the identity, so that it makes no difference whether a reader looks the vector up
before or after it; `post` is the rigid matrix.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from pipelines.api import DerivedObject, OutputInvalid, Provenance
from pipelines.dicom import header
from pipelines.dicom.read import read_dataset, text, tolerant
from pipelines.dicom.references import instance_item, refer
from pipelines.geometry.stack import StackGeometry

DEFORMABLE_SPATIAL_REGISTRATION: Final = "1.2.840.10008.5.1.4.1.1.66.3"
"""Deformable Spatial Registration Storage (PS3.4 B.5)."""
SERIES_NUMBER: Final = 9007
"""Ours; clear of what scanners use."""


def write_deformable_registration(
    field: NDArray[np.float32],
    geometry: StackGeometry,
    matrix: NDArray[np.float64],
    source: Sequence[Dataset],
    registered: Sequence[Dataset],
    provenance: Provenance,
    path: Path,
) -> DerivedObject:
    """Write the registration from `registered` to `source` and read it back.

    Parameters
    ----------
    field : ndarray, shape (slices, rows, columns, 3), float32
        (x, y, z) displacement of each point of the grid, patient LPS [mm].
    geometry : StackGeometry
        Even grid of `field`, in the frame of reference of `registered`.
    matrix : ndarray, shape (4, 4)
        Rigid; takes a displaced point to the frame of reference of `source`, patient LPS [mm].
    source, registered : sequence of Dataset
        Headers of both image series. Patient and study are those of `registered`.
    provenance : Provenance
    path : Path

    Raises
    ------
    OutputInvalid
        If the field is not finite or does not come back as it was.
    """
    if field.shape != (*geometry.shape, 3) or not np.isfinite(field).all():
        raise OutputInvalid(f"the field {field.shape} is not a finite field on its grid")
    vectors = np.ascontiguousarray(field, dtype="<f4").tobytes()
    with tolerant():
        ds = header.new_draft(
            DEFORMABLE_SPATIAL_REGISTRATION,
            "REG",
            "REG",
            [*registered, *source],
            provenance,
            series_number=SERIES_NUMBER,
            description="sCT to planning CT, deformable UNAPPROVED",
        )
        ds.Laterality = ""  # type 2C: no body part is stated
        ds.DeviceSerialNumber = header.clean_text("LO", provenance.version)
        ds.FrameOfReferenceUID = text(registered[0], "FrameOfReferenceUID")
        ds.PositionReferenceIndicator = ""
        ds.ContentLabel = "SCT_TO_PLANNING"
        ds.ContentDescription = "unapproved draft for research use"
        ds.ContentCreatorName = ""
        ds.DeformableRegistrationSequence = [_registration(vectors, geometry, matrix, source)]
        refer(ds, [*registered, *source])
        header.save(ds, path)
    again = read_dataset(path).DeformableRegistrationSequence[0]
    if bytes(again.DeformableRegistrationGridSequence[0].VectorGridData) != vectors:
        raise OutputInvalid("the deformable registration on disk does not hold the field")
    return header.derived_object(ds, path)


def _registration(
    vectors: bytes,
    geometry: StackGeometry,
    matrix: NDArray[np.float64],
    source: Sequence[Dataset],
) -> Dataset:
    method = Dataset()
    method.CodeValue = "125024"
    method.CodingSchemeDesignator = "DCM"
    method.CodeMeaning = "Image Content-based Alignment"
    item = Dataset()
    item.SourceFrameOfReferenceUID = text(source[0], "FrameOfReferenceUID")
    item.ReferencedImageSequence = [instance_item(image) for image in source]
    item.RegistrationTypeCodeSequence = [method]
    item.PreDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    item.PostDeformationMatrixRegistrationSequence = [_matrix(matrix)]
    item.DeformableRegistrationGridSequence = [_grid(vectors, geometry)]
    return item


def _matrix(matrix: NDArray[np.float64]) -> Dataset:
    item = Dataset()
    item.FrameOfReferenceTransformationMatrixType = "RIGID"
    item.FrameOfReferenceTransformationMatrix = _decimals(matrix.ravel())
    return item


def _grid(vectors: bytes, geometry: StackGeometry) -> Dataset:
    """Return the grid: x along the rows, y along the columns, z along their cross product."""
    slices, rows, columns = geometry.shape
    step, between_rows, between_columns = geometry.spacing
    grid = Dataset()
    grid.ImagePositionPatient = _decimals(geometry.origins[0])
    grid.ImageOrientationPatient = _decimals(
        np.concatenate([geometry.row_direction, geometry.column_direction])
    )
    grid.GridDimensions = [columns, rows, slices]
    grid.GridResolution = [between_columns, between_rows, step]
    grid.add(DataElement(Tag("VectorGridData"), "OF", vectors))
    return grid


def _decimals(values: NDArray[np.float64]) -> list[str]:
    return [format_number_as_ds(float(v) + 0.0) for v in values]
