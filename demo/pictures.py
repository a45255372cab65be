"""The pictures and the page of the demo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from demo import readback
from demo.checks import Check, ct_grid, evaluated
from demo.patient import Patient
from demo.readback import Received
from pipelines.report.figures import Curve, Overlay, Scan, compare, dvh_plot, three_planes
from pipelines.report.page import Picture, Section, Table, write_page

DVH_ROIS: Final = ("GTV", "PTV", "Lung_R", "Lung_L", "Heart", "SpinalCanal")

SHOWN_PERCENT: Final = (2.0, 98.0)
"""Points at the very top or bottom would lie on each other."""


def draw(received: Received, patient: Patient, folder: Path) -> list[Section]:
    """Draw what came back and return the sections of the page."""
    sections = []
    if received.structure_sets:
        sections.append(_contours(received, patient, folder))
    if received.images:
        sections.append(_images(received, patient, folder))
    if received.reports:
        sections.append(_dose(received, patient, folder))
    return sections


def page(
    folder: Path, checks: Sequence[Check], facts: Sequence[tuple[str, str]], parts: list[Section]
) -> Path:
    """Write ``index.html``: result first, then the pictures."""
    passed = sum(c.passed for c in checks)
    result = Section(
        title=f"{passed} of {len(checks)} checks passed",
        text="Every object below was sent by the node, fetched back from the archive and read "
        "again with code that shares nothing with the pipelines. Patient, CBCT and dose are "
        "simulated: the figures show that the chain works, not how good it is on patients.",
        tables=[
            Table(
                head=("object", "what", "found", "wanted", ""),
                rows=[
                    (c.item, c.what, c.found, c.wanted, "ok" if c.passed else "FAILED")
                    for c in checks
                ],
            ),
            Table(head=("run", ""), rows=facts),
        ],
    )
    lead = "One generated patient through the node: what was sent in and what came back."
    return write_page(folder / "index.html", "rtnode demo", [result, *parts], lead=lead)


def _contours(received: Received, patient: Patient, folder: Path) -> Section:
    structure_set, grid = received.structure_sets[0], ct_grid(patient)
    overlays = [
        Overlay(name=name, mask=readback.mask(structure_set, name, grid))
        for name in readback.roi_names(structure_set)
        if name != "Lungs"  # the same line as its two halves
    ]
    target = np.subtract(patient.ct.target, grid.origin)[::-1] / grid.spacing
    at = (round(target[0]), round(target[1]), round(target[2]))
    scan = Scan(hu=patient.ct.hu, spacing=patient.ct.spacing)
    path = three_planes(
        scan, folder / "contours.png", overlays=overlays, title="autocontour: RTSTRUCT over CT",
        at=at,
    )  # fmt: skip
    caption = "Contours of the RTSTRUCT over the planning CT, through the target."
    return Section(title="Contours", pictures=[Picture(path=path, caption=caption)])


def _images(received: Received, patient: Patient, folder: Path) -> Section:
    slices = next(iter(received.images.values()))
    hu, grid = readback.volume(slices)
    spacing = patient.treatment.spacing
    path = compare(
        folder / "synthetic_ct.png",
        cbct=Scan(hu=patient.cbct, spacing=spacing),
        sct=Scan(hu=hu, spacing=grid.spacing),
        truth=Scan(hu=patient.treatment.hu, spacing=spacing),
        body=evaluated(patient),
        title="synthetic CT of the simulated CBCT",
    )
    caption = "CBCT as reconstructed, synthetic CT as received, the true HU, error and histogram."
    return Section(title="Synthetic CT", pictures=[Picture(path=path, caption=caption)])


def _dose(received: Received, patient: Patient, folder: Path) -> Section:
    """Draw the true curves and, on them, the points that the SR states."""
    groups = readback.measurements(received.reports[0])
    top = float(patient.dose_gy.max())
    axis = np.linspace(0, top * 1.02, 300)
    curves, points = [], {}
    for name in DVH_ROIS:
        dose = np.sort(patient.dose_gy[patient.structures[name]])
        below = np.searchsorted(dose, axis)
        curves.append(Curve(name=name, dose_gy=axis, volume_percent=100 * (1 - below / len(dose))))
        for level in (5.0, 20.0, 40.0):
            found = [m.value for m in groups.get(name, []) if m.code == f"V{level:g}Gy[%]"]
            if found and SHOWN_PERCENT[0] < found[0] < SHOWN_PERCENT[1]:
                points[f"{name} V{level:g}"] = (level, found[0])
    path = dvh_plot(
        folder / "dvh.png", curves, title="dose_radiomics: points of the SR on the true curves",
        points=points,
    )  # fmt: skip
    rows = [
        (name, len(numbers), _first(numbers, readback.ABSORBED_DOSE))
        for name, numbers in groups.items()
    ]
    table = Table(head=("ROI", "numbers in the SR", "mean dose [Gy]"), rows=rows)
    return Section(title="Dose", tables=[table], pictures=[Picture(path=path, caption="DVH.")])


def _first(numbers: list[readback.Measurement], code: str) -> float | None:
    return next(
        (m.value for m in numbers if m.code == code and m.derivation == readback.MEAN), None
    )
