"""From a folder to a stability study on disk; the work behind ``rtnode dose-stability``."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.api import InputRejected
from pipelines.dose_radiomics.folder import read_cases
from pipelines.dose_radiomics.patterns import matches
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability import study
from pipelines.dose_radiomics.stability_report import summary, write_study
from pipelines.geometry.expressions import ExpressionError, Name, parse


def run(
    source: Path, output: Path, rois: Sequence[str], tell: Callable[[str], None]
) -> list[list[str]]:
    """Study the dose in `source`, write the result into `output`, return a short table.

    Raises
    ------
    InputRejected
        If the folder holds no case, an ROI is unknown, or no region has features.
    """
    settings = chosen(rois)
    cases = read_cases(source, settings)
    names = [roi.name for roi in cases[0].structures.rois]
    for pattern in settings.rois:
        if not any(matches(name, pattern) for name in names):
            raise InputRejected(_unknown(pattern), hint=f"the ROIs are: {', '.join(names)}")
    tell(f"read {len(cases)} dose{'s' if len(cases) > 1 else ''} of one plan")
    result = study(cases, settings, tell)
    for finding in result.findings:
        tell(f"{finding.severity}: {f'[{finding.roi}] ' if finding.roi else ''}{finding.message}")
    write_study(output, result, settings)
    return summary(result)


def chosen(rois: Sequence[str]) -> DoseRadiomicsSettings:
    """Return settings for names, patterns and expressions; for all ROIs where there are none."""
    if not rois:
        return DoseRadiomicsSettings()
    plain: list[str] = []
    derived: list[str] = []
    for text in rois:
        try:
            node = parse(text)
        except ExpressionError:
            plain.append(text)  # a name with spaces or a glob pattern
            continue
        if isinstance(node, Name) and not node.pattern:
            plain.append(node.text)
        else:
            derived.append(text)
    return DoseRadiomicsSettings(rois=tuple(plain), derived=tuple(derived), presets=())


def _unknown(text: str) -> str:
    """Return that no ROI has a name, and why the text is no expression either."""
    try:
        parse(text)
    except ExpressionError as error:
        return f"no ROI matches '{text}'; as an expression: {error}"
    return f"no ROI matches '{text}'"
