"""A folder of DICOM files as cases: one for each dose of the plan that lies in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.uid import (
    CTImageStorage,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    RTStructureSetStorage,
)

from pipelines.api import InputFile, InputRejected, Inputs, Role
from pipelines.dicom.read import read_header, text
from pipelines.dose_radiomics.inputs import COURSE, Case, read_case
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings

_ROLES: Final = {
    CTImageStorage: Role.CT,
    RTDoseStorage: Role.RTDOSE,
    RTPlanStorage: Role.RTPLAN,
    RTIonPlanStorage: Role.RTPLAN,
    RTStructureSetStorage: Role.RTSTRUCT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dose:
    """A dose file as far as its choice goes."""

    file: InputFile
    summation_type: str
    plan_uids: frozenset[str]


def read_cases(folder: Path, settings: DoseRadiomicsSettings) -> tuple[Case, ...]:
    """Return the cases of a folder, in the order of their SOP Instance UIDs.

    One case, or, where two or more plan doses of one plan are there, one for each of them: the
    same plan by different algorithms.

    Raises
    ------
    InputRejected
        If there is no dose with structures, or several that do not belong together.
    """
    files, doses = _scan(folder)
    plan_doses = next(
        (found for kind in COURSE if (found := [d for d in doses if d.summation_type == kind])), []
    )
    if len(plan_doses) <= 1:
        every = (*files, *(d.file for d in doses))
        return (read_case(Inputs(files=every), settings),)
    if not frozenset.intersection(*(d.plan_uids for d in plan_doses)):
        raise InputRejected(
            f"{len(plan_doses)} plan doses that do not name the same plan",
            hint="give a folder with one dose, or with doses of one plan by several algorithms",
        )
    return tuple(read_case(Inputs(files=(*files, d.file)), settings) for d in plan_doses)


def _scan(folder: Path) -> tuple[Sequence[InputFile], Sequence[_Dose]]:
    """Return the files that count, each SOP Instance UID once, and the doses apart."""
    files: dict[str, InputFile] = {}
    doses: dict[str, _Dose] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = read_header(path)
        except InputRejected:
            continue  # a folder holds other files too; what is missing is told later
        role = _ROLES.get(text(header, "SOPClassUID"))
        uid = text(header, "SOPInstanceUID")
        if role is None or uid in files or uid in doses:
            continue
        file = InputFile(role=role, path=path, sop_instance_uid=uid, sha256="")
        if role is not Role.RTDOSE:
            files[uid] = file
            continue
        plans = header.get("ReferencedRTPlanSequence") or []
        doses[uid] = _Dose(
            file=file,
            summation_type=text(header, "DoseSummationType").strip().upper(),
            plan_uids=frozenset(text(plan, "ReferencedSOPInstanceUID") for plan in plans) - {""},
        )
    return list(files.values()), [doses[uid] for uid in sorted(doses)]
