"""From input files to one consistent set: an image volume and the structures drawn on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, InputRejected, Inputs, Role, Severity
from pipelines.dicom.read import read_header, text
from pipelines.dicom.rtstruct import StructureSet, read_structure_set
from pipelines.dicom.volume import CtVolume, read_gray, read_volume
from pipelines.radiomics.resample import Axes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Everything that one evaluation is made of."""

    modality: str
    """CT or MR."""
    volume: CtVolume
    structures: StructureSet
    findings: tuple[Finding, ...]

    @property
    def samples(self) -> Axes:
        """Return the positions of the voxels along (slice, row, column) [mm], ascending."""
        geometry = self.volume.geometry
        rows = geometry.pixel_spacing[0] * np.arange(geometry.rows, dtype=np.float64)
        columns = geometry.pixel_spacing[1] * np.arange(geometry.columns, dtype=np.float64)
        return geometry.positions - geometry.positions[0], rows, columns

    def to_axes(self, points: Floats) -> Floats:
        """Return points, shape (n, 3), patient LPS [mm], along the axes of `samples` [mm]."""
        geometry = self.volume.geometry
        axes = np.stack([geometry.normal, geometry.column_direction, geometry.row_direction])
        along: Floats = (points - geometry.origins[0]) @ axes.T
        return along


def read_case(inputs: Inputs) -> Case:
    """Read and cross-check the inputs.

    Raises
    ------
    InputRejected
        If there is not one structure set, no image volume, or they do not belong together.
    """
    structure_paths = inputs.paths(Role.RTSTRUCT)
    if len(structure_paths) != 1:
        raise InputRejected(f"{len(structure_paths)} structure sets; one is needed")
    image_paths = sorted(inputs.paths(Role.IMAGE))
    if not image_paths:
        raise InputRejected("the images that the structures were drawn on are not there")
    structures = read_structure_set(structure_paths[0])
    modality = text(read_header(image_paths[0]), "Modality")
    if modality == "CT":
        volume = read_volume(image_paths)
    elif modality == "MR":
        volume = read_gray(image_paths, modality)
    else:
        raise InputRejected(f"features of {modality or 'unknown'} images are not offered: CT or MR")
    _same_patient(volume, structures)
    findings = (*volume.findings, *_same_frame(volume, structures))
    return Case(modality=modality, volume=volume, structures=structures, findings=findings)


def _same_patient(volume: CtVolume, structures: StructureSet) -> None:
    """Refuse to mix patients; with an empty patient ID the study must be the same."""
    image = volume.headers[0]
    patient = text(image, "PatientID").strip()
    other = text(structures.dataset, "PatientID").strip()
    study = text(image, "StudyInstanceUID") == structures.study_instance_uid
    if patient != other or (not patient and not study):
        raise InputRejected("images and structures are of different patients")


def _same_frame(volume: CtVolume, structures: StructureSet) -> tuple[Finding, ...]:
    """Refuse structures of another frame of reference; tell where one is not stated."""
    ours, theirs = volume.frame_of_reference_uid, structures.frame_of_reference_uid
    if ours and theirs and ours != theirs:
        raise InputRejected(
            "images and structures have different frames of reference: positions cannot be compared"
        )
    if ours and theirs:
        return ()
    told = "images or structures do not state their frame of reference; taken as the same"
    return (Finding(code="frame-of-reference-missing", severity=Severity.WARN, message=told),)
