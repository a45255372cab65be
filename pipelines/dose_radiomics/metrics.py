"""Dose metrics by their usual definitions, named in the style of TG-263."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.dose_radiomics.dvh import Dvh
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


def dose_metrics(dvh: Dvh, settings: DoseRadiomicsSettings) -> Iterator[Metric]:
    """Yield mean, extremes, spread, D_x, V_x and gEUD."""
    for name, value in (
        ("Mean", dvh.mean),
        ("Min", dvh.minimum),
        ("Max", dvh.maximum),
        ("SD", dvh.sd),
    ):
        yield Metric(name=f"{name}[Gy]", meaning=f"{name} dose", value=value, unit="Gy")
    for percent in settings.dose_at_percent:
        yield Metric(
            name=f"D{percent:g}%[Gy]",
            meaning=f"Dose to the hottest {percent:g} % of the volume",
            value=dvh.dose_at_percent(percent),
            unit="Gy",
        )
    for cc in settings.dose_at_cc:
        if cc <= dvh.volume_cc:
            yield Metric(
                name=f"D{cc:g}cc[Gy]",
                meaning=f"Dose to the hottest {cc:g} cm3",
                value=dvh.dose_at_cc(cc),
                unit="Gy",
            )
    for gray in settings.volume_at_gy:
        cc = dvh.cc_at_dose(gray)
        meaning = f"Volume that receives {gray:g} Gy or more"
        share = 100 * cc / dvh.volume_cc
        yield Metric(name=f"V{gray:g}Gy[%]", meaning=meaning, value=share, unit="%")
        yield Metric(name=f"V{gray:g}Gy[cc]", meaning=meaning, value=cc, unit="cm3")
    for a in settings.geud_a:
        yield Metric(
            name=f"gEUD({a:g})[Gy]",
            meaning=f"Generalized equivalent uniform dose, a = {a:g}",
            value=dvh.geud(a),
            unit="Gy",
        )


def homogeneity(dvh: Dvh) -> Iterator[Metric]:
    """Yield the homogeneity index of ICRU 83; it says something of targets only."""
    if (middle := dvh.dose_at_percent(50)) > 0:
        spread = dvh.dose_at_percent(2) - dvh.dose_at_percent(98)
        yield Metric(
            name="HI_ICRU83",
            meaning="Homogeneity index (D2% - D98%) / D50%",
            value=spread / middle,
            unit="1",
        )


def target_metrics(dvh: Dvh, isodose: Isodose) -> Iterator[Metric]:
    """Yield coverage, conformity, homogeneity (RTOG) and gradient indices of a target."""
    target = dvh.volume_cc
    inside = dvh.cc_at_dose(isodose.prescription_gy)
    around, half = isodose.reference_cc, isodose.half_cc
    for name, meaning, value in (
        ("Coverage", "TV_PIV / TV: part of the target inside the prescription", inside / target),
        ("CI_RTOG", "PIV / TV: conformity index (RTOG)", around / target),
        ("HI_RTOG", "Maximum dose / prescription", dvh.maximum / isodose.prescription_gy),
        ("R50", "PIV_50 / TV: half-prescription volume over target", half / target),
    ):
        yield Metric(name=name, meaning=meaning, value=value, unit="1")
    if around > 0:
        yield Metric(
            name="CN_Paddick",
            meaning="TV_PIV^2 / (TV PIV): conformation number (Paddick)",
            value=inside**2 / (target * around),
            unit="1",
        )
        yield Metric(
            name="GI", meaning="PIV_50 / PIV: gradient index", value=half / around, unit="1"
        )
