"""Dose metrics by their usual definitions, named in the style of TG-263."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pipelines.dose_radiomics.dvh import Dvh
from pipelines.dose_radiomics.metric_names import Kind, Wanted, wanted
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a dose distribution."""

    name: str
    """At most 16 characters: it is also a private code value."""
    meaning: str
    value: float
    unit: str
    """UCUM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isodose:
    """What the target indices need of the dose around a target."""

    prescription_gy: float
    reference_cc: float
    """Volume that receives the prescription, anywhere in the region used."""
    half_cc: float
    """Volume that receives half of it."""
    region: str
    """Where the two were measured, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a metric may be asked about one region."""

    dvh: Dvh
    prescription_gy: float | None
    """None where no prescription is known, or the dose is not the physical one."""
    isodose: Callable[[float], Isodose]
    """Measures the isodose volumes of a prescription; asked only where an index needs them."""


class NotComputed(Exception):
    """A metric has no value here; the message says why."""


INDICES: Final = (
    Kind.HI_ICRU83, Kind.COVERAGE, Kind.CI_RTOG, Kind.HI_RTOG, Kind.R50, Kind.CN_PADDICK, Kind.GI,
)  # fmt: skip
"""What a target gets without being asked."""
_UCUM: Final = {"Gy": "Gy", "%": "%", "cc": "cm3", "": "1"}


def volume_metrics(dvh: Dvh) -> Iterator[Metric]:
    """Yield what is known of the volume."""
    yield Metric(name="Volume[cc]", meaning="Volume", value=dvh.volume_cc, unit="cm3")
    if dvh.outside_cc > 0:
        yield Metric(
            name="VolOutGrid[cc]",
            meaning="Volume outside the dose grid",
            value=dvh.outside_cc,
            unit="cm3",
        )


def general(settings: DoseRadiomicsSettings) -> Iterator[Wanted]:
    """Yield what every region gets: mean, extremes, spread, D_x, V_x and gEUD."""
    names = ["Mean", "Min", "Max", "SD"]
    names += [f"D{percent:g}%" for percent in settings.dose_at_percent]
    names += [f"D{cc:g}cc" for cc in settings.dose_at_cc]
    for gray in settings.volume_at_gy:
        names += [f"V{gray:g}Gy[%]", f"V{gray:g}Gy[cc]"]
    names += [f"gEUD({a:g})" for a in settings.geud_a]
    yield from map(wanted, names)


def computed(asked: Iterable[Wanted], place: Place) -> tuple[list[Metric], list[str]]:
    """Return the metrics of one region, each once, and a line for each that has no value."""
    found: list[Metric] = []
    missing: list[str] = []
    for metric in dict.fromkeys(asked):
        try:
            value = _VALUES[metric.kind](metric, place)
        except NotComputed as reason:
            missing.append(f"{metric.name}: {reason}")
            continue
        found.append(
            Metric(name=metric.name, meaning=_meaning(metric), value=value,
                   unit=_UCUM[metric.unit])
        )  # fmt: skip
    return found, missing


def _prescription(place: Place) -> float:
    if place.prescription_gy is None:
        raise NotComputed("no prescription is known for the physical dose")
    return place.prescription_gy


def _gray(metric: Wanted, place: Place) -> float:
    """Return the dose limit of a volume metric [Gy]."""
    if metric.relative:
        return metric.value * _prescription(place) / 100
    return metric.value


def _as_dose(gray: float, metric: Wanted, place: Place) -> float:
    """Return a dose in the unit of the metric: Gy, or percent of the prescription."""
    return 100 * gray / _prescription(place) if metric.unit == "%" else gray


def _as_volume(cc: float, metric: Wanted, place: Place) -> float:
    return 100 * cc / place.dvh.volume_cc if metric.unit == "%" else cc


def _fitting(metric: Wanted, place: Place) -> float:
    """Return the volume of a dose metric [cc]; it must not exceed the region."""
    if metric.value > place.dvh.volume_cc:
        raise NotComputed(f"the region has only {place.dvh.volume_cc:.3g} cm3")
    return metric.value


def _dose_at_percent(metric: Wanted, place: Place) -> float:
    return _as_dose(place.dvh.dose_at_percent(metric.value), metric, place)


def _dose_at_cc(metric: Wanted, place: Place) -> float:
    return _as_dose(place.dvh.dose_at_cc(_fitting(metric, place)), metric, place)


def _cold_dose_at_cc(metric: Wanted, place: Place) -> float:
    hot = place.dvh.volume_cc - _fitting(metric, place)
    return _as_dose(place.dvh.dose_at_cc(hot), metric, place)


def _volume(metric: Wanted, place: Place) -> float:
    return _as_volume(place.dvh.cc_at_dose(_gray(metric, place)), metric, place)


def _cold_volume(metric: Wanted, place: Place) -> float:
    cold = place.dvh.volume_cc - place.dvh.cc_at_dose(_gray(metric, place))
    return _as_volume(max(cold, 0.0), metric, place)


def _homogeneity(_metric: Wanted, place: Place) -> float:
    dvh = place.dvh
    if (middle := dvh.dose_at_percent(50)) <= 0:
        raise NotComputed("the median dose is 0")
    return (dvh.dose_at_percent(2) - dvh.dose_at_percent(98)) / middle


def _inside(place: Place) -> float:
    """Return the part of the region that receives its prescription [cc]."""
    return place.dvh.cc_at_dose(_prescription(place))


def _around(place: Place) -> float:
    """Return the volume of the prescription's isodose [cc]."""
    around = place.isodose(_prescription(place)).reference_cc
    if around <= 0:
        raise NotComputed("nothing receives the prescription")
    return around


def _conformity(_metric: Wanted, place: Place) -> float:
    return place.isodose(_prescription(place)).reference_cc / place.dvh.volume_cc


def _conformation(_metric: Wanted, place: Place) -> float:
    return _inside(place) ** 2 / (place.dvh.volume_cc * _around(place))


def _spill(_metric: Wanted, place: Place) -> float:
    return place.isodose(_prescription(place)).half_cc / place.dvh.volume_cc


def _gradient(_metric: Wanted, place: Place) -> float:
    return place.isodose(_prescription(place)).half_cc / _around(place)


_VALUES: Final[Mapping[Kind, Callable[[Wanted, Place], float]]] = MappingProxyType(
    {
        Kind.DOSE_AT_PERCENT: _dose_at_percent,
        Kind.DOSE_AT_CC: _dose_at_cc,
        Kind.COLD_DOSE_AT_CC: _cold_dose_at_cc,
        Kind.VOLUME: _volume,
        Kind.COLD_VOLUME: _cold_volume,
        Kind.GEUD: lambda metric, place: place.dvh.geud(metric.value),
        Kind.MEAN: lambda _, place: place.dvh.mean,
        Kind.MIN: lambda _, place: place.dvh.minimum,
        Kind.MAX: lambda _, place: place.dvh.maximum,
        Kind.SD: lambda _, place: place.dvh.sd,
        Kind.COVERAGE: lambda _, place: _inside(place) / place.dvh.volume_cc,
        Kind.CI_RTOG: _conformity,
        Kind.CN_PADDICK: _conformation,
        Kind.HI_ICRU83: _homogeneity,
        Kind.HI_RTOG: lambda _, place: place.dvh.maximum / _prescription(place),
        Kind.R50: _spill,
        Kind.GI: _gradient,
    }
)
_MEANINGS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.DOSE_AT_PERCENT: "Dose to the hottest {value:g} % of the volume",
        Kind.DOSE_AT_CC: "Dose to the hottest {value:g} cm3",
        Kind.COLD_DOSE_AT_CC: "Highest dose in the coldest {value:g} cm3",
        Kind.VOLUME: "Volume that receives {value:g} {of} or more",
        Kind.COLD_VOLUME: "Volume that receives less than {value:g} {of}",
        Kind.GEUD: "Generalized equivalent uniform dose, a = {value:g}",
        Kind.MEAN: "Mean dose",
        Kind.MIN: "Min dose",
        Kind.MAX: "Max dose",
        Kind.SD: "SD dose",
        Kind.COVERAGE: "TV_PIV / TV: part of the target inside the prescription",
        Kind.CI_RTOG: "PIV / TV: conformity index (RTOG)",
        Kind.CN_PADDICK: "TV_PIV^2 / (TV PIV): conformation number (Paddick)",
        Kind.HI_ICRU83: "Homogeneity index (D2% - D98%) / D50%",
        Kind.HI_RTOG: "Maximum dose / prescription",
        Kind.R50: "PIV_50 / TV: half-prescription volume over target",
        Kind.GI: "PIV_50 / PIV: gradient index",
    }
)
"""Code meanings; at most 64 characters."""


def _meaning(metric: Wanted) -> str:
    of = "% of the prescription" if metric.relative else "Gy"
    return _MEANINGS[metric.kind].format(value=metric.value, of=of)


def asked_for(
    names: Sequence[str], settings: DoseRadiomicsSettings, fits: Callable[[str, str], bool]
) -> Iterator[Wanted]:
    """Yield what `settings` want of a region that goes by `names`, beside the general metrics.

    Parameters
    ----------
    names
        Its label, and its ROI name where that differs.
    settings
    fits
        Whether a name fits a pattern.
    """
    for rule in settings.metrics_by_roi:
        if any(fits(name, pattern) for name in names for pattern in rule.rois):
            yield from map(wanted, rule.metrics)
