"""The claims of the founding research, measured again: a figure, a limit, whether it holds.

Anatomy is preserved; the histogram becomes bimodal; a deformable registration of the planning CT
is better and steadier when it is driven by the synthetic CT than by the histogram-matched CBCT.
Procedural pelves with a known deformation and simulated CBCTs need no data; a folder of cases as
for `rtnode sct validate` is measured as far as its truth goes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cbct_sim import simulate
from models.phantom_sites import patient
from models.training.sct_pairs import evaluation_settings
from pipelines.api import Finding, InputRejected, Severity
from pipelines.dicom.volume import CtVolume, from_sitk, resample_to
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import Mask, find_regions
from pipelines.imaging.nps import flat_squares, spectrum, texture
from pipelines.report.boards import checkerboards, planes_of
from pipelines.report.figures import SOFT_TISSUE, Scan, compare
from pipelines.report.page import Picture, Section, Table, write_page
from pipelines.report.sheet import write_sheet
from pipelines.synthetic_ct.agreement import coarse, local_correlation
from pipelines.synthetic_ct.classical import match_histogram
from pipelines.synthetic_ct.deform import find_deformation, warped
from pipelines.synthetic_ct.inputs import read_inputs
from pipelines.synthetic_ct.learned import Learned
from pipelines.synthetic_ct.methods import Scene
from pipelines.synthetic_ct.qa import gradient_correlation, modes
from pipelines.synthetic_ct.register import align
from pipelines.synthetic_ct.site import TRUTH, case_inputs, truth_of

Hu = NDArray[np.float32]
Floats = NDArray[np.float64]

SHAPE, SPACING = (24, 128, 128), (5.0, 3.4, 3.4)
DEFORMATION_MM: Final = (2.5, 6.8, 6.8)
"""SD of the known displacement along (slice, row, column); these and the grid are those of the
reference page, section 3."""
SMOOTHNESS_MM: Final = 30.0
PLANNING_NOISE_HU: Final = 8.0
LIGHT_SMOOTHING: Final = 1.5
"""Of the registration's field, voxels: as where the claim comes from. The pipeline smooths more
(`deform.SMOOTHING_VOXELS`), which hides what drives the registration."""
FIRST: Final = 81_000
"""Seeds from here on were never trained on and set no limit."""
SEEDS: Final = 5
"""Noise realizations of each CBCT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A claim: what is measured, and what must hold."""

    claim: str
    measure: str
    least: float = -np.inf
    most: float = np.inf

    def holds(self, value: float) -> bool:
        """Return whether `value` lies within the limit."""
        return self.least <= value <= self.most

    @property
    def words(self) -> str:
        """The limit in words."""
        return f">= {self.least:g}" if np.isfinite(self.least) else f"<= {self.most:g}"


CLAIMS: Final = {
    "edges": Limit(
        claim="anatomy preserved", measure="gradient correlation, CBCT and sCT",
        least=0.85,
    ),
    "local": Limit(
        claim="anatomy preserved", measure="local correlation, 2nd percentile",
        least=0.50,
    ),
    "valley_cbct": Limit(
        claim="histogram bimodal again", measure="valley ratio, CBCT (1 = one mode)",
        least=0.95,
    ),
    "valley_sct": Limit(
        claim="histogram bimodal again", measure="valley ratio, sCT",
        most=0.75,
    ),
    "vct_gain": Limit(
        claim="registration better on the sCT", measure="virtual-CT error, change [%]",
        most=-20.0,
    ),
    "field_gain": Limit(
        claim="registration better on the sCT", measure="error of the field, change [%]",
        most=0.0,
    ),
    "steadiness": Limit(
        claim="registration steadier on the sCT", measure="SD of the field over noise, change [%]",
        most=0.0,
    ),
    "jacobian": Limit(
        claim="registration steadier on the sCT", measure="spread of the Jacobian, change [%]",
        most=0.0,
    ),
    "noise": Limit(
        claim="noise as in a CT", measure="noise, distance from the CT's, change [%]",
        most=0.0,
    ),
}  # fmt: skip
"""Reference page, section 8; the limits stand before anything is measured."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A CBCT, its planning CT in place, and what is known of the truth; arrays of one shape."""

    name: str
    scans: tuple[Hu, ...]
    """CBCTs of the same moment, each with noise of its own; at least one."""
    body: Mask
    geometry: StackGeometry
    prior: Hu | None = None
    prior_body: Mask | None = None
    truth: Hu | None = None
    """The CT of the CBCT's day."""
    field: Floats | None = None
    """Known displacement from today to the planning CT [mm], shape (slices, rows, columns, 3)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What was measured on one subject."""

    subject: Subject
    sct: Hu
    values: dict[str, float]
    """Key of `CLAIMS` -> value; what cannot be measured is absent."""
    virtual: tuple[Hu, Hu] | None = None
    """Virtual CT driven by the matched CBCT, and by the synthetic CT."""


def phantoms(count: int, seeds: int = SEEDS) -> Iterator[Subject]:
    """Yield procedural pelves on two days with the known deformation between them."""
    for number in range(FIRST, FIRST + count):
        random = np.random.default_rng([number, 7])
        planned = patient("pelvis", SHAPE, SPACING, number, noise_hu=0)
        vectors = _smooth(random)
        at = np.meshgrid(*map(np.arange, SHAPE), indexing="ij", sparse=True)
        where = [a + v / s for a, v, s in zip(at, vectors, SPACING, strict=True)]
        today = ndimage.map_coordinates(planned, where, order=1, mode="nearest")
        settings = evaluation_settings(number)
        scans = tuple(
            simulate(today, SPACING, settings, 1000 * number + seed) for seed in range(seeds)
        )
        regions = find_regions(scans[0], SPACING, diameter_mm=2 * settings.fov_radius_mm)
        geometry = StackGeometry.regular(shape=SHAPE, spacing=SPACING)
        noisy = planned + random.normal(0, PLANNING_NOISE_HU, SHAPE).astype(np.float32)
        prior = align(_volume(scans[0], geometry), regions, _volume(noisy, geometry), ())
        slice_, row, column = vectors
        yield Subject(
            name=f"pelvis {number}", scans=scans, body=regions.body, geometry=geometry,
            prior=prior.hu, prior_body=prior.body, truth=today,
            field=np.stack([column, row, slice_], axis=-1),
        )  # fmt: skip


def cases(folder: Path) -> Iterator[Subject | str]:
    """Yield the cases in `folder`, or a sentence on why one was left out.

    Each is a folder with ``cbct/``; ``planning/``, ``reg/`` and ``ct/`` (the truth) where there
    are. Noise seeds and the true field are not known of a real case.
    """
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        try:
            read = read_inputs(case_inputs(place))
            truth = truth_of(place, read).hu if (place / TRUTH).is_dir() else None
        except InputRejected as refused:
            yield f"{place.name} was left out: {refused}"
            continue
        scene = Scene(
            cbct=read.hu, regions=read.regions, geometry=read.cbct.geometry, prior=read.prior
        )
        yield Subject(
            name=place.name, scans=(read.hu,), body=scene.known, geometry=scene.geometry,
            prior=None if read.prior is None else read.prior.hu,
            prior_body=None if read.prior is None else read.prior.body, truth=truth,
        )  # fmt: skip


def measure(subject: Subject, learned: Learned) -> Found:
    """Return the figures of every claim that `subject` allows."""
    spacing = subject.geometry.spacing
    scts = [learned.apply(scan, subject.body, spacing).hu for scan in subject.scans]
    cbct, sct, body = subject.scans[0], scts[0], subject.body
    values = {
        "edges": gradient_correlation(sct, cbct, body),
        "local": local_correlation(coarse(sct, cbct, body, spacing)),
        "valley_cbct": modes(cbct, body).valley,
        "valley_sct": modes(sct, body).valley,
    }
    if subject.prior is None or subject.prior_body is None:
        return Found(subject=subject, sct=sct, values=values)
    pixel = subject.geometry.pixel_spacing
    grain = texture(cbct, sct, body, pixel)
    planned = spectrum(subject.prior, flat_squares(subject.prior, subject.prior_body), pixel)
    if grain is not None and planned is not None:
        before, after = (
            abs(np.log(s.variance / planned.variance)) for s in (grain.before, grain.after)
        )
        values["noise"] = 100.0 * float(after / before - 1.0)
    goal = subject.prior[subject.prior_body]
    matched = [match_histogram(scan, body, goal) for scan in subject.scans]
    drives = [_Drive.of(subject, images) for images in (matched, scts)]
    old, new = drives
    for key, before, after in (
        ("vct_gain", old.virtual_error, new.virtual_error),
        ("field_gain", old.field_error, new.field_error),
        ("steadiness", old.unsteadiness, new.unsteadiness),
        ("jacobian", old.jacobian_sd, new.jacobian_sd),
    ):
        if before is not None and after is not None and before > 0:
            values[key] = 100.0 * (after / before - 1.0)
    return Found(subject=subject, sct=sct, values=values, virtual=(old.virtual, new.virtual))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Drive:
    """The registration of the planning CT onto one kind of image."""

    virtual: Hu
    virtual_error: float | None
    field_error: float | None
    unsteadiness: float | None
    jacobian_sd: float

    @classmethod
    def of(cls, subject: Subject, images: Sequence[Hu]) -> "_Drive":
        if subject.prior is None:
            raise ValueError("a registration needs the planning CT")
        body, grid = subject.body, subject.geometry
        found = [
            find_deformation(image, subject.prior, body, grid, smoothing=LIGHT_SMOOTHING)
            for image in images
        ]
        fields = []
        for one in found:
            coarse_field, coarse_grid = from_sitk(one.field)
            parts = [
                resample_to(coarse_field[..., i], coarse_grid, grid, outside=0.0)[body]
                for i in range(3)
            ]
            fields.append(np.stack(parts, axis=-1))
        virtual = warped(found[0], subject.prior, grid)
        jacobian, jacobian_grid = from_sitk(found[0].jacobian)
        spread = resample_to(jacobian, jacobian_grid, grid, outside=1.0)[body]
        truth, field = subject.truth, subject.field
        errors = [] if field is None else [
            float(np.linalg.norm(f - field[body], axis=-1).mean()) for f in fields
        ]  # fmt: skip
        steady = len(fields) > 1
        return cls(
            virtual=virtual,
            virtual_error=None if truth is None else float(np.abs(virtual - truth)[body].mean()),
            field_error=float(np.mean(errors)) if errors else None,
            unsteadiness=float(np.std(fields, axis=0).mean()) if steady else None,
            jacobian_sd=float(spread.std()),
        )


def means(found: Sequence[Found]) -> dict[str, float]:
    """Return the mean of each figure over the subjects that have it."""
    return {
        key: float(np.mean(values))
        for key in CLAIMS
        if (values := [one.values[key] for one in found if key in one.values])
    }


def write_claims(folder: Path, found: Sequence[Found], learned: Learned, source: str) -> Path:
    """Write the page (HTML, PDF, PNG) and its pictures; return the HTML file."""
    folder.mkdir(parents=True, exist_ok=True)
    mean = means(found)
    rows = [
        (limit.claim, limit.measure, round(mean[key], 3), limit.words,
         "holds" if limit.holds(mean[key]) else "FAILS",
         " ".join(f"{one.values[key]:.2f}" for one in found if key in one.values))
        for key, limit in CLAIMS.items()
        if key in mean
    ]  # fmt: skip
    absent = [limit.measure for key, limit in CLAIMS.items() if key not in mean]
    findings = [
        Finding(code="not-measured", severity=Severity.WARN, message=f"{words}: no truth for it")
        for words in absent
    ]
    title = "Claims of the founding research, measured again"
    claims = Section(
        title="Claims",
        text=f"{source}; network {learned.pack.label}. Means over {len(found)} cases, each value "
        "in the last column. Simulated images say nothing about real ones.",
        findings=findings,
        tables=[Table(head=("claim", "measure", "mean", "limit", "", "cases"), rows=rows,
                      inks={"holds": "#1a7f37", "FAILS": "#c00000"})],
        pictures=_pictures(folder, found[0]),
    )  # fmt: skip
    page = write_page(folder / "claims.html", title, [claims])
    write_sheet(folder, title, [claims], first=1, name="claims")
    return page


def _pictures(folder: Path, one: Found) -> list[Picture]:
    subject = one.subject
    cbct, sct = (_scan(subject, hu) for hu in (subject.scans[0], one.sct))
    truth = None if subject.truth is None else _scan(subject, subject.truth)
    made = [
        compare(folder / "comparison.png", cbct=cbct, sct=sct, truth=truth, body=subject.body,
                title=f"{subject.name}: CBCT, synthetic CT, truth", window=SOFT_TISSUE),
    ]  # fmt: skip
    images = [("CBCT", cbct), ("synthetic CT", sct)]
    boards = [("CBCT and synthetic CT", cbct, sct)]
    if subject.prior is not None and one.virtual is not None:
        prior = _scan(subject, subject.prior)
        images.append(("planning CT", prior))
        old, new = (_scan(subject, hu) for hu in one.virtual)
        boards += [
            ("CBCT and planning CT", cbct, prior),
            ("synthetic CT and virtual CT driven by it", sct, new),
        ]
        if truth is not None:
            boards.append(("truth and virtual CT driven by the CBCT", truth, old))
    title = f"{subject.name}: edges go on where both agree"
    made += [
        checkerboards(folder / "checkerboards.png", boards, title=title, window=SOFT_TISSUE),
        planes_of(folder / "planes.png", images, window=SOFT_TISSUE, title=subject.name),
    ]
    words = ("CBCT, synthetic CT, difference, histogram", "Checkerboards", "Three planes")
    return [Picture(path=path, caption=w) for path, w in zip(made, words, strict=True)]


def _scan(subject: Subject, hu: Hu) -> Scan:
    rows, columns = subject.geometry.row_direction, subject.geometry.column_direction
    return Scan(
        hu=hu,
        spacing=subject.geometry.spacing,
        row_direction=(float(rows[0]), float(rows[1]), float(rows[2])),
        column_direction=(float(columns[0]), float(columns[1]), float(columns[2])),
    )


def _smooth(random: np.random.Generator) -> list[Floats]:
    """Return the known displacement [mm] along (slice, row, column)."""
    sigma = [SMOOTHNESS_MM / s for s in SPACING]
    fields = [ndimage.gaussian_filter(random.normal(0, 1, SHAPE), sigma) for _ in range(3)]
    return [
        np.asarray(f * (size / f.std()), dtype=np.float64)
        for f, size in zip(fields, DEFORMATION_MM, strict=True)
    ]


def _volume(hu: Hu, geometry: StackGeometry) -> CtVolume:
    return CtVolume(hu=hu, padded=None, geometry=geometry, headers=(), frame_of_reference_uid="1.2")
