"""What a site does with its own images: CTs to train on, pairs to validate on.

A validation case is a folder with ``cbct/`` and ``ct/`` (the truth: a CT of the same day, or as
near as there is), and, where the node would have them, ``planning/`` and ``reg/``: DICOM files.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from models.training.sct_data import Ct
from pipelines.api import InputFile, InputRejected, Inputs, Role
from pipelines.dicom.read import text
from pipelines.dicom.volume import read_volume
from pipelines.synthetic_ct.inputs import Read, read_inputs
from pipelines.synthetic_ct.learned import Learned
from pipelines.synthetic_ct.methods import Candidate, Method, Scene, order, run_chain
from pipelines.synthetic_ct.metrics import errors
from pipelines.synthetic_ct.register import Prior, align
from pipelines.synthetic_ct.validation import PairResult
from pipelines.synthetic_ct.wepl import path_difference

FOLDERS: Final = {Role.CBCT: "cbct", Role.PLANNING_CT: "planning", Role.REG: "reg"}
TRUTH: Final = "ct"


def read_cts(folder: Path) -> Iterator[Ct | str]:
    """Yield every CT series below `folder`, or a sentence on why one was left out."""
    series: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, specific_tags=["Modality", "SeriesInstanceUID"])
        except (InvalidDicomError, OSError):
            continue
        if text(header, "Modality") == "CT":
            series[text(header, "SeriesInstanceUID")].append(path)
    for number, paths in enumerate(series.values(), start=1):
        try:
            volume = read_volume(paths)
        except InputRejected as refused:
            yield f"series {number} of {len(series)} was left out: {refused}"
            continue
        yield Ct(
            name=f"ct_{number:04d}",  # no identifier of a patient enters a training set
            hu=np.asarray(volume.hu, dtype=np.float32),
            spacing=volume.geometry.spacing,
        )


def measure(case: Path, learned: Learned) -> PairResult:
    """Run the classical chain and the network on a validation case; return their errors.

    Raises
    ------
    InputRejected
        If an image is missing or unfit, or the CT does not show what the CBCT shows.
    """
    read = read_inputs(case_inputs(case))
    truth = truth_of(case, read)
    spacing = read.cbct.geometry.spacing
    scene = Scene(cbct=read.hu, regions=read.regions, geometry=read.cbct.geometry, prior=read.prior)
    scored = scene.body & truth.covered
    has_prior = read.prior is not None
    classical = run_chain(scene, order("auto", has_prior=has_prior))[-1]
    runs, _ = learned.opinion(read.hu, read.regions.body, spacing)
    made = _network(scene, learned) if runs else None
    found = None if made is None else errors(made.hu, truth.hu, scored)
    path = None if made is None else path_difference(made.hu, truth.hu, scored, spacing).p95_mm
    return PairResult(
        name=case.name,
        raw_mae=_round(errors(read.hu, truth.hu, scored).mae),
        classical_mae=_round(errors(classical.hu, truth.hu, scored).mae),
        network_mae=None if found is None else _round(found.mae),
        network_me=None if found is None else _round(found.me),
        path_p95_mm=None if path is None else _round(path),
        verdict="refused" if made is None else str(made.verdict),
    )


def _network(scene: Scene, learned: Learned) -> Candidate:
    known = Scene(
        cbct=scene.cbct,
        regions=scene.regions,
        geometry=scene.geometry,
        prior=scene.prior,
        learned=learned,
    )
    return run_chain(known, (Method.NETWORK,))[-1]


def truth_of(case: Path, read: Read) -> Prior:
    """Return the CT of the case on the grid of its CBCT.

    Raises
    ------
    InputRejected
        If the CT does not show what the CBCT shows.
    """
    registrations = [pydicom.dcmread(p) for p in _files(case / "reg")]
    truth = align(read.cbct, read.regions, read_volume(_files(case / TRUTH)), registrations)
    if not truth.fits:
        raise InputRejected("the CT does not show what the CBCT shows: no truth to compare with")
    return truth


def case_inputs(case: Path) -> Inputs:
    """Return the input files of a validation case, as the node would hand them over."""
    files = [
        InputFile(role=role, path=path, sop_instance_uid="", sha256="")
        for role, name in FOLDERS.items()
        for path in _files(case / name)
    ]
    return Inputs(files=tuple(files))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def _round(value: float) -> float:
    return round(value, 2) if math.isfinite(value) else 0.0
