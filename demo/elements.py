"""What all generated objects share: identity, device, common modules, decimal strings."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from demo.grid import Grid

NAMESPACE: Final = uuid.UUID("6d2c1f2e-5a34-4c3b-9f35-0a1d8a1c7b10")
"""Root of the UIDs of generated data, so that no two seeds and no real object share one."""
IMPLEMENTATION: Final = UID(f"2.25.{uuid.uuid5(NAMESPACE, 'implementation').int}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Identity that all objects of one generated study share; nothing in it is a person's."""

    seed: int = 0
    patient_id: str = "RTNODE-PHANTOM"
    patient_name: str = "Phantom^Generated"
    date: str = "20260105"
    time: str = "080000"
    study: str = "planning"
    """Name of the study: another name gives another Study Instance UID."""

    def uid(self, *parts: object) -> UID:
        """Return the UID that belongs to this seed and `parts`, always the same (PS3.5 B.2)."""
        name = "/".join(map(str, (self.seed, *parts)))
        return UID(f"2.25.{uuid.uuid5(NAMESPACE, name).int}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a device says of itself; routing recognises it by these words."""

    manufacturer: str
    model: str
    description: str
    """Series Description."""
    software: str = "1.0"
    kvp: float = 120
    kernel: str = "STANDARD"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")


def common(
    case: Case, sop_class: UID, modality: str, device: Device, series: str, index: int = 0
) -> Dataset:
    """Return a data set with patient, study, series, equipment and SOP common modules."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = case.uid("instance", series, index)
    ds.InstanceCreationDate, ds.InstanceCreationTime = case.date, case.time
    ds.PatientName, ds.PatientID = case.patient_name, case.patient_id
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID = case.uid("study", case.study)
    ds.StudyDate, ds.StudyTime = case.date, case.time
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.StudyDescription = "GENERATED PHANTOM - NOT A PATIENT"
    ds.Modality = modality
    ds.SeriesInstanceUID = case.uid("series", series)
    ds.SeriesDate, ds.SeriesTime = case.date, case.time
    ds.SeriesNumber = 1
    ds.SeriesDescription = device.description
    ds.OperatorsName = ""
    ds.Manufacturer, ds.ManufacturerModelName = device.manufacturer, device.model
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", device.software
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION
    return ds


def set_plane(ds: Dataset, grid: Grid) -> None:
    """Write orientation and in-plane spacing: rows first (PS3.3 C.7.6.2, 10.7.1.3)."""
    ds.ImageOrientationPatient = decimals([*grid.row_direction, *grid.column_direction])
    ds.PixelSpacing = decimals(grid.spacing[1:])


def reference(ds: Dataset) -> Dataset:
    """Return an item that points to `ds` by SOP class and instance."""
    return item(ReferencedSOPClassUID=ds.SOPClassUID, ReferencedSOPInstanceUID=ds.SOPInstanceUID)


def item(**elements: object) -> Dataset:
    """Return a data set, or sequence item, with these keywords."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def decimal(value: float) -> DSfloat:
    """Return `value` as a decimal string of at most 16 characters (PS3.5 6.2)."""
    return DSfloat(float(value), auto_format=True)


def decimals(values: Iterable[float] | NDArray[np.float64]) -> list[DSfloat]:
    """Return every value as `decimal`."""
    return [decimal(float(v)) for v in values]
