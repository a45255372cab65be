"""Headers without files, for the tests of the routing rules."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from node.config.match import DEFAULT_CBCT, Kind
from node.domain import AETitle, Header, Instance, Reference, Source, Uid
from node.routing.facts import Arrival, Candidate, Origin
from node.routing.recognize import is_ours, recognize, without_scouts

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "REG": "1.2.840.10008.5.1.4.1.1.66.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
OBI = {"Manufacturer": "Varian Medical Systems", "ManufacturerModelName": "OBI Cone-beam CT"}
SIEMENS = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Biograph 40"}
SOURCE = Source(
    calling_ae_title=AETitle("CTSIM1"),
    called_ae_title=AETitle("RTNODE"),
    address="10.0.0.1",
    association_id="0000abcd",
)
ORIGIN = Origin(calling_ae_title=AETitle("CTSIM1"), called_ae_title=AETitle("RTNODE"))
RELEASED = Arrival(quiet_s=1.0, open_associations=0, interrupted=False, one_by_one=False)


def refs(kind: str, *uids: str) -> tuple[Reference, ...]:
    return tuple(Reference(kind=kind, uid=Uid(uid)) for uid in uids)


def instance(
    uid: str,
    *,
    modality: str = "CT",
    sop_class: str | None = None,
    series: str = "1.2.1",
    study: str = "1.2",
    patient: str = "patient-a",
    frame: str | None = "1.2.9",
    references: tuple[Reference, ...] = (),
    sha256: str | None = None,
    **keywords,
) -> Instance:
    return Instance(
        header=Header(
            sop_class_uid=Uid(sop_class or SOP_CLASSES[modality]),
            sop_instance_uid=Uid(uid),
            study_instance_uid=Uid(study),
            series_instance_uid=Uid(series),
            transfer_syntax_uid=Uid("1.2.840.10008.1.2.1"),
            frame_of_reference_uid=Uid(frame) if frame else None,
            modality=modality,
            patient_key=patient,
            keywords=keywords,
            references=references,
        ),
        path=Path("/blobs") / uid,
        sha256=sha256 or f"sha-{uid}",
        size=1,
        source=SOURCE,
        received_at=datetime(2026, 11, 20, tzinfo=UTC),
        conflict=False,
    )


def slices(
    positions: Iterable[float],
    *,
    series: str = "1.2.1",
    shift: float = 0.0,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    **changes,
) -> list[Instance]:
    """Return axial slices at these z [mm]; `shift` moves the origin in y by each mm of z."""
    return [
        instance(
            f"{series}.{number}",
            series=series,
            **(
                {
                    "ImagePositionPatient": [-250.0, -250.0 + shift * z, float(z)],
                    "ImageOrientationPatient": list(map(float, orientation)),
                    "PixelSpacing": [0.977, 0.977],
                    "Rows": 512,
                    "Columns": 512,
                    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                    **SIEMENS,
                }
                | changes
            ),
        )
        for number, z in enumerate(positions, start=1)
    ]


def candidate(instances: Sequence[Instance], *, complete: bool = True, **changes) -> Candidate:
    kind, _ = recognize(instances, DEFAULT_CBCT)
    values = {
        "series_instance_uid": instances[0].header.series_instance_uid,
        "patient_key": instances[0].header.patient_key,
        "kind": kind,
        "complete": complete,
        "instances": without_scouts(instances) or tuple(instances),
        "ours": is_ours(instances),
    }
    return Candidate(**(values | changes))


def kind_of(instances: Sequence[Instance]) -> Kind:
    return recognize(instances, DEFAULT_CBCT)[0]
