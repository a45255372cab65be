"""Image series with closed-form values and structures on them, as files."""

import hashlib
from pathlib import Path

import numpy as np
from pydicom import uid

from pipelines.api import InputFile, Inputs, Provenance, Request, Role, settings_sha256
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from tests.unit.pipelines.dose_radiomics.support import common, item, save

STORAGE = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage, "PT": uid.UID(
    "1.2.840.10008.5.1.4.1.1.128")}  # fmt: skip
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
"""Rows and columns of a coronal-like stack, turned about z."""


def series(
    value_at,
    *,
    modality="CT",
    shape=(16, 40, 44),
    step=(3.0, 1.5, 1.5),
    first=(-33.0, -30.0, -22.5),
    orientation=(1, 0, 0, 0, 1, 0),
    patient="DOSE-1",
):
    """Return slices of `value_at(points)`, points (..., 3) LPS [mm]; `first` is (x, y, z)."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    j, i = np.meshgrid(step[1] * np.arange(shape[1]), step[2] * np.arange(shape[2]), indexing="ij")
    found = []
    for k in range(shape[0]):
        corner = np.array(first) + k * step[0] * normal
        points = corner + j[..., None] * column + i[..., None] * row
        ds = common(STORAGE[modality], modality, "image")
        ds.SOPInstanceUID = uid.generate_uid(entropy_srcs=[modality, "image", str(k)])
        ds.PatientID = patient
        ds.ImagePositionPatient = [f"{v:.6f}" for v in corner]
        ds.ImageOrientationPatient = [f"{v:.8f}" for v in orientation]
        ds.PixelSpacing = list(step[1:])
        ds.Rows, ds.Columns = shape[1:]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        slope, intercept = (1, -1024) if modality == "CT" else (0.5, 0)
        if modality == "CT":
            ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        else:
            ds.RescaleSlope, ds.RescaleIntercept = "0.5", "0"
        stored = np.rint((value_at(points) - intercept) / slope)
        ds.PixelData = stored.astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        ds.InstanceNumber = k + 1
        found.append(ds)
    return found


def names_images(structures, images):
    """Let the structure set name its images, as a planning system does."""
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    frame.RTReferencedStudySequence = [
        item(
            ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
            ReferencedSOPInstanceUID=images[0].StudyInstanceUID,
            RTReferencedSeriesSequence=[
                item(
                    SeriesInstanceUID=images[0].SeriesInstanceUID,
                    ContourImageSequence=[
                        item(ReferencedSOPClassUID=ds.SOPClassUID,
                             ReferencedSOPInstanceUID=ds.SOPInstanceUID)
                        for ds in images
                    ],
                )
            ],
        )
    ]  # fmt: skip
    return structures


def request(folder: Path, images, structures, settings=None) -> Request:
    """Return a request on these data sets with an empty output folder."""
    settings = settings or ImageRadiomicsSettings()
    names_images(structures, images)
    folder.mkdir(parents=True, exist_ok=True)
    files = [(Role.RTSTRUCT, save(structures, folder / "rs.dcm"))]
    files += [(Role.IMAGE, save(ds, folder / f"im{k}.dcm")) for k, ds in enumerate(images)]
    names = [ds.SOPInstanceUID for ds in (structures, *images)]
    named = [(role, path, name) for (role, path), name in zip(files, names, strict=True)]
    return request_of(folder, named, settings)


def request_of(folder, files, settings) -> Request:
    """Return a request on (role, path, SOP Instance UID)."""
    inputs = tuple(
        InputFile(
            role=role,
            path=path,
            sop_instance_uid=str(name),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for role, path, name in files
    )
    output = folder / "out"
    output.mkdir()
    return Request(
        inputs=Inputs(files=inputs),
        settings=settings,
        provenance=Provenance(
            pipeline="image_radiomics",
            version="0.1.0",
            settings_sha256=settings_sha256(settings),
            sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in inputs)),
        ),
        output=output,
    )
