"""All regions of a case, each for itself: one that fails is told, the others are reported."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from scipy.spatial import QhullError

from pipelines.api import Finding, Severity
from pipelines.dicom.rtstruct import Roi
from pipelines.dose_radiomics.dvh import Dvh
from pipelines.dose_radiomics.inputs import Case
from pipelines.dose_radiomics.metric_names import Wanted, wanted
from pipelines.dose_radiomics.metrics import (
    INDICES,
    Isodose,
    Metric,
    Place,
    asked_for,
    computed,
    general,
    volume_metrics,
)
from pipelines.dose_radiomics.patterns import matches
from pipelines.dose_radiomics.recipe import (
    Biological,
    measured,
    region_dvh,
    region_features,
)
from pipelines.dose_radiomics.regions import Region
from pipelines.dose_radiomics.rois import find
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.geometry.expressions import Both, ExpressionError, Name, Node, names, parse
from pipelines.radiomics.contours import Solid, Spacing, box_solid, solid
from pipelines.radiomics.region import Features

T = TypeVar("T")
NO_FEATURES = Features(values={}, averaged={}, voxels=0)
LOST_SHARE = 0.001
"""Part of a region outside the dose grid that is worth a warning."""
_TARGET_TYPES = frozenset({"GTV", "CTV", "PTV"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One region to be evaluated."""

    label: str
    expression: str
    """Empty for an ROI as drawn."""
    node: Node
    operands: dict[Name, tuple[Roi, ...]]

    @property
    def leading(self) -> Roi:
        """Return the ROI itself, or the leftmost operand."""
        return self.operands[names(self.node)[0]][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One region with its results."""

    task: Task
    region: Region
    dvh: Dvh | None
    prescription_gy: float | None
    """What the region is judged by, where any metric rests on it."""
    metrics: tuple[Metric, ...]
    features: Features
    parameters: tuple[str, ...]
    """What is special to this region, in words."""

    @property
    def name(self) -> str:
        """Return the ROI name or the expression."""
        return self.task.label

    @property
    def expression(self) -> str:
        """Return the expression; empty for an ROI as drawn."""
        return self.task.expression

    @property
    def roi(self) -> Roi:
        """Return the ROI itself, or the leftmost operand of the expression."""
        return self.task.leading


class Evaluator:
    """Evaluates regions of one case; contours are prepared once per ROI."""

    def __init__(self, case: Case, settings: DoseRadiomicsSettings) -> None:
        self._case = case
        self._settings = settings
        self._spacing = Spacing(image_mm=case.image_spacing_mm, dose_mm=case.dose.spacing_mm[0])
        self._solids: dict[int, Solid] = {}
        self._isodoses: dict[float, Isodose] = {}
        self.findings: list[Finding] = []

    def run(self) -> tuple[Evaluated, ...]:
        """Return the results of all wanted ROIs and derived regions, in order."""
        results = [self.guarded(task.label, partial(self._evaluate, task)) for task in self.tasks()]
        return tuple(result for result in results if result is not None)

    def tasks(self) -> Iterator[Task]:
        """Yield all wanted ROIs and derived regions; what cannot be evaluated becomes a finding."""
        settings = self._settings
        wanted = list(self._wanted())
        often = Counter(roi.name for roi in wanted)
        for roi in wanted:
            label = f"{roi.name} #{roi.number}" if often[roi.name] > 1 else roi.name
            name = Name(roi.name)
            yield Task(label=label, expression="", node=name, operands={name: (roi,)})
        derived = [(text, False) for text in settings.presets]
        derived += [(text, True) for text in settings.derived]
        for text, demanded in derived:
            task = self._derived(text, demanded=demanded)
            if task is not None:
                yield task

    def guarded(self, label: str, evaluate: Callable[[], T | None]) -> T | None:
        """Return the result of one region; arithmetic that fails there must not stop the others."""
        try:
            return evaluate()
        except (ArithmeticError, ValueError, IndexError, QhullError) as error:
            self._find("roi-failed", Severity.WARN, label,
                       f"could not be evaluated ({type(error).__name__})")  # fmt: skip
            return None

    @property
    def prescription_gy(self) -> float | None:
        """Return the prescription of the course [Gy]."""
        if self._settings.prescription_gy is not None:
            return self._settings.prescription_gy
        return self._case.plan.prescription_gy if self._case.plan else None

    @property
    def fractions(self) -> int | None:
        """Return the number of fractions."""
        planned = self._case.plan.fractions if self._case.plan else None
        return self._settings.fractions or planned

    def _wanted(self) -> Iterable[Roi]:
        """Yield the ROIs to be evaluated as they are."""
        excluded = {kind.upper() for kind in self._settings.exclude_types}
        for roi in self._case.structures.rois:
            asked = any(matches(roi.name, pattern) for pattern in self._settings.rois)
            if not asked or roi.interpreted_type in excluded:
                continue
            if roi.loops and not roi.closed:
                kinds = ", ".join(sorted({loop.geometric_type for loop in roi.loops}))
                self._find("roi-without-volume", Severity.INFO, roi.name,
                           f"holds {kinds} only; it encloses no volume")  # fmt: skip
            elif not roi.loops:
                self._find("roi-empty", Severity.INFO, roi.name, "has no contours")
            else:
                yield roi

    def _derived(self, text: str, *, demanded: bool) -> Task | None:
        """Return the task of an expression; None, with a finding, where operands are missing."""
        try:
            node = parse(text)
        except ExpressionError as error:
            self._find("expression-invalid", Severity.WARN, text, str(error))
            return None
        rois = [roi for roi in self._case.structures.rois if roi.closed]
        operands = {name: find(name, rois) for name in names(node)}
        missing = [name.label for name, found in operands.items() if not found]
        if missing:
            self._find("derived-not-computed", Severity.WARN if demanded else Severity.INFO, text,
                       f"not computed: no ROI matches {', '.join(missing)}")  # fmt: skip
            return None
        return Task(label=text, expression=text, node=node, operands=operands)

    def region(self, task: Task) -> Region | None:
        """Return the region of a task; None, with a finding, where it encloses nothing."""
        solids = {
            name: tuple(s for roi in rois if (s := self._solid(roi)).slabs)
            for name, rois in task.operands.items()
        }
        if not all(solids.values()):
            self._find("roi-empty", Severity.WARN, task.label, "no contour encloses an area")
            return None
        return Region(node=task.node, solids=solids, prescription=self.prescription_gy)

    def _evaluate(self, task: Task) -> Evaluated | None:
        """Return the results of one region; None, with a finding, where it has no volume."""
        region = self.region(task)
        if region is None:
            return None
        label, expression, leading = task.label, task.expression, task.leading
        convert, words = self.conversion(leading)
        try:
            region = measured(region, self._case.dose, convert)
            found = region_dvh(region, self._case.dose, convert)
        except ExpressionError as error:
            self._find("derived-not-computed", Severity.WARN, label, str(error))
            return None
        notes = [note for group in region.solids.values() for s in group for note in s.notes]
        for note in dict.fromkeys(notes):
            self._find("contours-repaired", Severity.INFO, label, note)
        if found is None:
            return self._outside(region, task)
        self._tell_loss(found, label)
        features = self._features(region, convert, leading, label, expression)
        lines = [*words, *(f"Contours: {note}" for note in dict.fromkeys(notes))]
        if expression:
            drawn = "; ".join(
                f"{name.label} = {' | '.join(roi.name for roi in rois)}"
                for name, rois in task.operands.items()
            )
            lines.append(f"Expression: {expression}, with {drawn}")
        for margin, grown in region.grown.items():
            lines.append(f"Margin {margin.mm:+g} mm: exact Euclidean distance on a lattice of "
                         f"{grown.lattice.step_mm:g} mm, surface by covered fraction")  # fmt: skip
        if features.reason:
            lines.append(f"Not computed: features; {features.reason}")
        more, prescription = self._metrics(task, found, lines)
        metrics = (*volume_metrics(found), *more)
        return Evaluated(
            task=task,
            region=region,
            dvh=found,
            prescription_gy=prescription,
            metrics=metrics,
            features=features,
            parameters=tuple(lines),
        )

    def _solid(self, roi: Roi) -> Solid:
        """Return the slabs of an ROI; made once."""
        if roi.number not in self._solids:
            loops = [self._case.dose.to_axes(loop.points) for loop in roi.closed]
            self._solids[roi.number] = solid(roi, loops, self._spacing)
        return self._solids[roi.number]

    def conversion(self, roi: Roi) -> tuple[Biological | None, list[str]]:
        """Return the conversion of the dose for an ROI, and words for it."""
        kind = self._settings.dose
        if kind == "physical":
            return None, []
        if self.fractions is None:
            raise ExpressionError(f"{kind} needs the number of fractions, and none is known")
        ratio = next(
            (value for p, value in self._settings.alpha_beta_by_roi if matches(roi.name, p)),
            self._settings.alpha_beta_gy,
        )
        words = f"{kind}: alpha/beta {ratio:g} Gy, {self.fractions} fractions, after interpolation"
        return Biological(kind, ratio, self.fractions), [words]

    def has_features(self, roi: Roi) -> bool:
        """Return whether an ROI as drawn gets features at all."""
        excluded = {kind.upper() for kind in self._settings.feature_exclude_types}
        return roi.interpreted_type not in excluded

    def _features(
        self,
        region: Region,
        convert: Biological | None,
        roi: Roi,
        label: str,
        expression: str,
    ) -> Features:
        """Return the features of a region, or why there are none."""
        if not expression and not self.has_features(roi):
            reason = f"type {roi.interpreted_type} gets a DVH only"
            return Features(values={}, averaged={}, voxels=0, reason=reason)
        if not self._settings.families:
            return NO_FEATURES
        features = region_features(region, self._case.dose, convert, self._settings)
        if features.reason:
            self._find("roi-too-small-for-texture", Severity.INFO, label,
                       f"DVH only: {features.reason}")  # fmt: skip
        return features

    def _outside(self, region: Region, task: Task) -> Evaluated | None:
        """Return a region without any dose: its volume is told, nothing is invented."""
        low, high = region.box
        ours = [(line[0], line[-1]) for line in self._case.dose.positions]
        apart = any(
            high[axis] < first or low[axis] > last for axis, (first, last) in enumerate(ours)
        )
        if not apart:
            self._find("roi-empty", Severity.INFO, task.label, "the region has no volume")
            return None
        self._find("roi-outside-dose", Severity.WARN, task.label, "lies outside the dose grid")
        volume = sum(s.prism_cc for group in region.solids.values() for s in group)
        metric = Metric(
            name="VolOutGrid[cc]",
            meaning="Volume outside the dose grid",
            value=volume,
            unit="cm3",
        )
        return Evaluated(
            task=task,
            region=region,
            dvh=None,
            prescription_gy=None,
            metrics=(metric,) if not task.expression else (),
            features=NO_FEATURES,
            parameters=("Not computed: the region lies outside the dose grid",),
        )

    def _tell_loss(self, found: Dvh, label: str) -> None:
        """Tell where part of a region is not covered by the dose grid."""
        share = found.outside_cc / (found.outside_cc + found.volume_cc)
        if share > LOST_SHARE:
            self.findings.append(
                Finding(
                    code="roi-partly-outside-dose",
                    severity=Severity.WARN,
                    message=f"{100 * share:.1f} % of the volume lie outside the dose grid; "
                    "percentages refer to the part inside",
                    roi=label,
                    value=round(found.outside_cc, 3),
                    unit="cm3",
                )
            )

    def _metrics(
        self, task: Task, found: Dvh, lines: list[str]
    ) -> tuple[Iterable[Metric], float | None]:
        """Return the metrics of a region, and the prescription where they rest on one.

        What has no value is told in `lines`.
        """
        asked = list(general(self._settings))
        target = not task.expression and _is_target(task.leading)
        if target:
            asked += [wanted(kind) for kind in INDICES]
        demanded = list(asked_for(_called(task), self._settings, matches))
        prescription = self._prescription_of(task)
        place = Place(dvh=found, prescription_gy=prescription, isodose=self._isodose)
        metrics, missing = computed([*asked, *demanded], place)
        judged = prescription if target or _relative(demanded) else None
        if judged is not None:
            lines.append(f"Prescription {judged:g} Gy")
            if judged in self._isodoses:
                lines.append(f"Isodose volumes {self._isodoses[judged].region}")
        lines += [f"Not computed: {line}" for line in missing]
        for line in missing:
            if line.partition(":")[0] in {metric.name for metric in demanded}:
                self._find("metric-not-computed", Severity.INFO, task.label, line)
        return metrics, judged

    def _prescription_of(self, task: Task) -> float | None:
        """Return the prescription that a region is judged by [Gy]; none for biological dose."""
        if self._settings.dose != "physical":
            return None
        named = (
            gray
            for pattern, gray in self._settings.prescriptions
            if any(matches(name, pattern) for name in _called(task))
        )
        planned = self._case.plan.prescription_by_roi if self._case.plan else {}
        own = None if task.expression else planned.get(task.leading.number)
        return next(named, None) or self._settings.prescription_gy or own or self.prescription_gy

    def _isodose(self, prescription: float) -> Isodose:
        """Return the volumes of prescription and half of it, inside the body where it is drawn."""
        if prescription not in self._isodoses:
            self._isodoses[prescription] = self._measure_isodose(prescription)
        return self._isodoses[prescription]

    def _measure_isodose(self, prescription: float) -> Isodose:
        dose = self._case.dose
        warm = np.argwhere(dose.dose >= prescription / 2)
        body = [roi for roi in self._case.structures.rois if roi.interpreted_type == "EXTERNAL"]
        body = [roi for roi in body if roi.closed and self._solid(roi).slabs]
        place = "inside External" if body else "in the whole dose grid"
        nothing = Isodose(prescription_gy=prescription, reference_cc=0.0, half_cc=0.0, region=place)
        if not len(warm):
            return nothing
        low, high = [], []
        for axis, line in enumerate(dose.positions):
            first, last = int(warm[:, axis].min()), int(warm[:, axis].max())
            low.append(line[max(first - 1, 0)])
            high.append(line[min(last + 1, len(line) - 1)])
        box, external = Name("box"), Name("External")
        solids: dict[Name, tuple[Solid, ...]] = {box: (box_solid(np.array(low), np.array(high)),)}
        node: Node = box
        if body:
            node = Both(box, external)
            solids[external] = tuple(self._solid(roi) for roi in body)
        cell = min(dose.spacing_mm) / 2
        found = region_dvh(Region(node=node, solids=solids, cell=cell), dose, None)
        if found is None:
            return nothing
        return Isodose(
            prescription_gy=prescription,
            reference_cc=found.cc_at_dose(prescription),
            half_cc=found.cc_at_dose(prescription / 2),
            region=place,
        )

    def _find(self, code: str, severity: Severity, roi: str, message: str) -> None:
        self.findings.append(Finding(code=code, severity=severity, message=message, roi=roi))


def _called(task: Task) -> tuple[str, ...]:
    """Return what a region goes by in patterns."""
    return (task.expression,) if task.expression else (task.leading.name, task.label)


def _relative(asked: Iterable[Wanted]) -> bool:
    """Return whether any metric rests on the prescription."""
    return any(m.relative or m.kind in INDICES or (m.unit == "%" and m.kind.startswith("D"))
               for m in asked)  # fmt: skip


def _is_target(roi: Roi) -> bool:
    """Return whether an ROI is a target, by type or name."""
    return roi.interpreted_type in _TARGET_TYPES or roi.name[:3].upper() in _TARGET_TYPES
