"""All regions of a case, each for itself: one that fails is told, the others are reported."""

import fnmatch
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import QhullError

from pipelines.api import Finding, Severity
from pipelines.dicom.rtstruct import Roi
from pipelines.image_radiomics.inputs import Case
from pipelines.image_radiomics.recipe import image_on, processing, recipe
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.radiomics.cells import on_centers, on_voxels
from pipelines.radiomics.contours import Solid, Spacing, solid
from pipelines.radiomics.region import Features, region_features
from pipelines.radiomics.resample import Axes, trilinear

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One region with its features."""

    name: str
    roi: Roi
    volume_cc: float
    """As drawn: the prisms of its contours."""
    features: Features
    parameters: tuple[str, ...]
    """What is special to this region, in words."""


class Evaluator:
    """Evaluates the regions of one case."""

    def __init__(self, case: Case, settings: ImageRadiomicsSettings) -> None:
        self._case = case
        self._settings = settings
        self._recipe = recipe(settings, case.modality)
        self._samples = case.samples
        self.findings: list[Finding] = []

    def run(self) -> tuple[Evaluated, ...]:
        """Return the results of all wanted ROIs that enclose a volume, in order."""
        results = []
        for name, roi in self._wanted():
            try:
                result = self._evaluate(name, roi)
            except (ArithmeticError, ValueError, IndexError, QhullError) as error:
                self._find("roi-failed", Severity.WARN, name,
                           f"could not be evaluated ({type(error).__name__})")  # fmt: skip
                continue
            if result is not None:
                results.append(result)
        return tuple(results)

    def _wanted(self) -> Iterator[tuple[str, Roi]]:
        """Yield the ROIs to be evaluated, each with a name of its own."""
        asked = [roi for roi in self._case.structures.rois if self._matches(roi.name)]
        often = Counter(roi.name for roi in asked)
        for roi in asked:
            name = f"{roi.name} #{roi.number}" if often[roi.name] > 1 else roi.name
            if roi.closed:
                yield name, roi
            else:
                self._find("roi-without-volume", Severity.INFO, name, "has no closed contours")

    def _matches(self, name: str) -> bool:
        patterns = self._settings.rois
        return any(fnmatch.fnmatchcase(name.casefold(), p.casefold()) for p in patterns)

    def _evaluate(self, name: str, roi: Roi) -> Evaluated | None:
        """Return the features of one ROI; None, with a finding, where it encloses nothing."""
        case = self._case
        spacing = Spacing(image_mm=case.volume.geometry.spacing[0], dose_mm=1.0)
        drawn = solid(roi, [case.to_axes(loop.points) for loop in roi.closed], spacing)
        for note in drawn.notes:
            self._find("contours-repaired", Severity.INFO, name, note)
        if not drawn.slabs:
            self._find("roi-empty", Severity.WARN, name,
                       "no contour in the planes of the image encloses an area")  # fmt: skip
            return None
        self._tell_loss(drawn, name)
        chosen = processing(self._settings, case.modality)

        def image_at(axes: Axes) -> Floats:
            return image_on(case.volume.hu, self._samples, axes, chosen)

        def covered(axes: Axes, _: Floats) -> Floats:
            if chosen.mask == "contours":
                return on_voxels(drawn.slabs, axes)
            inside = on_centers(drawn.slabs, self._samples).astype(np.float64)
            return trilinear(inside, self._samples, axes)

        features = region_features(image_at, self._samples, drawn.box, covered, self._recipe)
        lines = [f"Contours: {note}" for note in drawn.notes]
        if features.reason:
            lines.append(f"Not computed: features; {features.reason}")
            self._find("roi-too-small-for-texture", Severity.INFO, name, features.reason)
        return Evaluated(
            name=name,
            roi=roi,
            volume_cc=drawn.prism_cc,
            features=features,
            parameters=tuple(lines),
        )

    def _tell_loss(self, drawn: Solid, name: str) -> None:
        """Tell where a region reaches beyond the image: what is there has no values."""
        low, high = drawn.box
        beyond = []
        for line, first, last in zip(self._samples, low, high, strict=True):
            half = (line[-1] - line[0]) / max(len(line) - 1, 1) / 2
            beyond.append(max(line[0] - half - first, last - line[-1] - half))
        if max(beyond) > 1e-3:  # noqa: PLR2004 - the noise of coordinates [mm]
            self._find("roi-partly-outside-image", Severity.WARN, name,
                       f"reaches {max(beyond):.1f} mm beyond the image; features are of the part "
                       "inside")  # fmt: skip

    def _find(self, code: str, severity: Severity, roi: str, message: str) -> None:
        self.findings.append(Finding(code=code, severity=severity, message=message, roi=roi))
