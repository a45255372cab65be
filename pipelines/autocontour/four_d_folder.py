"""A folder with a 4DCT in, a folder with its contours out: the requests of all phases."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from pipelines.api import (
    InputFile,
    InputRejected,
    Inputs,
    Json,
    Provenance,
    Request,
    Role,
    settings_sha256,
)
from pipelines.autocontour.four_d import contour
from pipelines.dicom.phases import Phase, find_phases
from pipelines.dicom.read import read_header, text

NAME = "autocontour"


def contour_folder(
    folder: Path, out: Path, settings: BaseModel, version: str, tell: Callable[[str], None]
) -> dict[str, Json]:
    """Contour the 4DCT below `folder` into the new folder `out`; return its figures.

    Parameters
    ----------
    folder
        Read at any depth.
    out
        New or empty; see `pipelines.autocontour.four_d.contour`. Receives ``4d.json`` as well.
    settings
        Of the autocontour pipeline.
    version
        Of the autocontour pipeline.
    tell
        Is told each step in words.

    Raises
    ------
    InputRejected
        Where there is no 4DCT, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise InputRejected(f"{out} is not empty", hint="name a new folder")
    series = find_phases(sorted(path for path in folder.rglob("*") if path.is_file()))
    out.mkdir(parents=True, exist_ok=True)
    every = [*series.phases, *((series.average,) if series.average else ())]
    files = {phase.series_instance_uid: _files(phase) for phase in every}

    def request_of(phase: Phase, place: Path) -> Request:
        chosen = files[phase.series_instance_uid]
        return Request(
            inputs=Inputs(files=tuple(chosen)),
            settings=settings,
            provenance=_provenance(chosen, settings, version),
            output=place,
        )

    whole = _provenance([f for chosen in files.values() for f in chosen], settings, version)
    figures = contour(series, request_of, whole, out, tell)
    (out / "4d.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _files(phase: Phase) -> list[InputFile]:
    return [
        InputFile(
            role=Role.CT,
            path=path,
            sop_instance_uid=text(read_header(path), "SOPInstanceUID"),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in phase.paths
    ]


def _provenance(files: Sequence[InputFile], settings: BaseModel, version: str) -> Provenance:
    return Provenance(
        pipeline=NAME,
        version=version,
        settings_sha256=settings_sha256(settings),
        sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in files)),
    )
