"""CBCTs of another simulator than ours: cone beam, other physics, reconstructed by RTK.

    python -m models.training.sct_pairs --archive ../shared/data/train_sts_ct.tar.xz --out build/sct
    python -m venv /tmp/rtk && /tmp/rtk/bin/pip install itk-rtk
    /tmp/rtk/bin/python benchmarks/synthetic_ct_rtk.py build/sct/evaluation build/rtk
    python -m models.training.evaluate_sct --pairs build/rtk/half --weights models/packs/...

Runs outside the node's environment: it needs numpy and RTK (openrtk.org, Apache-2.0) and
nothing of ours but the held-out CTs. Nothing of it trained or tuned the network. What differs from
`models.cbct_sim`: cone beam on a flat panel with Joseph projection and Feldkamp reconstruction of
another code, four other energies, bone by density, a bow-tie filter, scatter as a wide blur of the
primary with a veil instead of a p-weighted kernel, and a vendor correction that takes one constant
from each view.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import itk
import numpy as np
from itk import RTK as rtk  # noqa: N811 (as RTK's own examples)

SOURCE_MM, PANEL_MM = 1000.0, 1500.0
CELL_MM = (2.4, 4.0)
"""(along the rotation, along the axis) on the panel."""
ROWS = 48
WIDTH_MM, OFFSET_MM = 400.0, 148.0
ENERGY_SHARES = (0.10, 0.33, 0.32, 0.25)
"""Photons at 40, 60, 80 and 100 keV."""
WATER_CM2_G = (0.2683, 0.2059, 0.1837, 0.1707)
BONE_CM2_G = (0.6655, 0.3148, 0.2229, 0.1855)
"""Mass attenuation: NIST XCOM, water and cortical bone (ICRU-44)."""
BONE_G_CM3 = 1.92
CALIBRATION_MM = 180.0
END_SLICES = 6
"""At each end of the stack the cone beam does not see enough."""
RIM_MM = 5.0

Image = itk.Image[itk.F, 3]
Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way to scan."""

    half: bool
    views: int
    photons: float
    scatter: float
    """Share of the primary, blurred wide, that arrives as scatter: as much as the primary itself
    behind the thickest part."""
    veil: float
    """Uniform scatter, share of the open beam behind the patient."""
    corrected: float
    """Share of each view's darkest signal that the vendor takes away as scatter."""
    hann: float
    gain_sd: float = 0.002


def protocol(case: int, *, half: bool) -> Protocol:
    """Return the protocol of a case."""
    random = np.random.default_rng([case, int(half), 3])
    return Protocol(
        half=half,
        views=240 if half else 160,
        photons=float(10 ** random.uniform(4.5, 5.3)),
        scatter=float(random.uniform(0.02, 0.06) if half else random.uniform(0.005, 0.03)),
        veil=float(random.uniform(0.001, 0.003)),
        corrected=float(random.uniform(0.1, 0.4)),
        hann=float(random.uniform(0.6, 1.0)),
    )


def scan(hu: Array, spacing: tuple[float, float, float], setup: Protocol, seed: int) -> Array:
    """Return the CBCT of `hu` (slice, row, column), HU, on the same grid."""
    geometry = _geometry(setup)
    density = np.clip(1 + hu / 1000, 0, None)
    bone = np.clip((hu - 100) / 1500, 0, 1)
    water = np.where(bone > 0, 1.1 * (1 - bone), density)
    paths = [_project(part, spacing, geometry, setup) for part in (water, bone * BONE_G_CM3)]
    signal = _detect(paths, setup, seed)
    attenuation = -np.log(np.clip(signal, 1e-5, None))
    mu = _reconstruct(attenuation, hu.shape, spacing, geometry, setup)
    at = CALIBRATION_MM / 10
    through = sum(s * math.exp(-m * at) for s, m in zip(ENERGY_SHARES, WATER_CM2_G, strict=True))
    reference = -math.log(through) / CALIBRATION_MM
    return 1000 * (mu / reference - 1)


def _geometry(setup: Protocol) -> "rtk.ThreeDCircularProjectionGeometry":
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    arc = 360.0 if setup.half else 205.0
    for view in range(setup.views):
        geometry.AddProjection(SOURCE_MM, PANEL_MM, view * arc / setup.views, 0.0, 0.0)
    return geometry


def _panel(setup: Protocol) -> tuple[int, float]:
    """Return columns of the panel and the place of the first, mm."""
    columns = int(WIDTH_MM / CELL_MM[0])
    middle = OFFSET_MM if setup.half else 0.0
    return columns, middle - (columns - 1) / 2 * CELL_MM[0]


def _image(values: Array, spacing: tuple[float, float, float]) -> "Image":
    """Return (slice, row, column) as RTK turns it: the axis of rotation is y."""
    turned = np.ascontiguousarray(values.transpose(1, 0, 2), dtype=np.float32)
    image = itk.image_from_array(turned)
    steps = (spacing[2], spacing[0], spacing[1])
    image.SetSpacing(steps)
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(turned.shape[::-1], steps, strict=True)])
    return image


def _constant(
    size: tuple[int, ...], spacing: tuple[float, ...], origin: tuple[float, ...]
) -> "Image":
    source = rtk.ConstantImageSource[Image].New()
    source.SetSize(size)
    source.SetSpacing(spacing)
    source.SetOrigin(origin)
    source.SetConstant(0.0)
    source.Update()
    return source.GetOutput()


def _project(
    values: Array,
    spacing: tuple[float, float, float],
    geometry: "rtk.ThreeDCircularProjectionGeometry",
    setup: Protocol,
) -> Array:
    """Return path lengths (view, panel row, panel column), g/cm2."""
    columns, first = _panel(setup)
    origin = (first, -(ROWS - 1) / 2 * CELL_MM[1], 0.0)
    joseph = rtk.JosephForwardProjectionImageFilter[Image, Image].New()
    joseph.SetInput(0, _constant((columns, ROWS, setup.views), (*CELL_MM, 1.0), origin))
    joseph.SetInput(1, _image(values, spacing))
    joseph.SetGeometry(geometry)
    joseph.Update()
    return itk.array_from_image(joseph.GetOutput()) / 10


def _detect(paths: list[Array], setup: Protocol, seed: int) -> Array:
    """Return the corrected signal over that of the air scan."""
    random = np.random.default_rng([seed, 9])
    water, bone = paths
    primary = sum(
        s * np.exp(-w * water - b * bone)
        for s, w, b in zip(ENERGY_SHARES, WATER_CM2_G, BONE_CM2_G, strict=True)
    )
    columns, first = _panel(setup)
    place = first + CELL_MM[0] * np.arange(columns)
    bow_tie = 0.15 + 0.85 * np.exp(-((place / 140.0) ** 2))
    scatter = setup.scatter * _wide(primary) + setup.veil
    counts = random.poisson(setup.photons * bow_tie * (primary + scatter)).astype(np.float64)
    gain = 1 + random.normal(0, setup.gain_sd, (1, *primary.shape[1:]))
    signal = counts * gain / (setup.photons * bow_tie)
    darkest = np.percentile(signal, 2, axis=(1, 2), keepdims=True)
    return signal - setup.corrected * darkest


def _wide(values: Array, sigma_mm: float = 90.0) -> Array:
    """Return (view, row, column) blurred on the panel, edges repeated."""
    for axis, cell in ((1, CELL_MM[1]), (2, CELL_MM[0])):
        n = values.shape[axis]
        at = np.arange(n)
        kernel = np.exp(-0.5 * ((at[:, None] - at[None, :]) * cell / sigma_mm) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ kernel.T, -1, axis)
    return values


def _reconstruct(
    attenuation: Array,
    shape: tuple[int, ...],
    spacing: tuple[float, float, float],
    geometry: "rtk.ThreeDCircularProjectionGeometry",
    setup: Protocol,
) -> Array:
    """Return attenuation coefficients (slice, row, column), 1/mm."""
    _, first = _panel(setup)
    views = itk.image_from_array(attenuation.astype(np.float32))
    views.SetSpacing((*CELL_MM, 1.0))
    views.SetOrigin((first, -(ROWS - 1) / 2 * CELL_MM[1], 0.0))
    if setup.half:
        weights = rtk.DisplacedDetectorImageFilter[Image].New()
    else:
        weights = rtk.ParkerShortScanImageFilter[Image].New()
    weights.SetInput(views)
    weights.SetGeometry(geometry)
    empty = _image(np.zeros(shape, np.float32), spacing)
    feldkamp = rtk.FDKConeBeamReconstructionFilter[Image].New()
    feldkamp.SetInput(0, empty)
    feldkamp.SetInput(1, weights.GetOutput())
    feldkamp.SetGeometry(geometry)
    feldkamp.GetRampFilter().SetTruncationCorrection(0.5)
    feldkamp.GetRampFilter().SetHannCutFrequency(setup.hann)
    feldkamp.Update()
    return itk.array_from_image(feldkamp.GetOutput()).transpose(1, 0, 2)


def _seen(shape: tuple[int, ...], spacing: tuple[float, float, float], setup: Protocol) -> Array:
    """Return the circle that every view sees, without its rim."""
    columns, first = _panel(setup)
    reach = (first + (columns - 1) * CELL_MM[0]) * SOURCE_MM / PANEL_MM
    radius = SOURCE_MM * math.sin(math.atan(reach / SOURCE_MM)) - RIM_MM
    y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape[1:], spacing[1:], strict=True))
    return np.broadcast_to(y[:, None] ** 2 + x[None, :] ** 2 <= radius**2, shape)


def main() -> None:
    """Scan every CT twice: half fan and full fan; what lies there already is not made again."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pairs", type=Path, help="evaluation pairs: their CTs are the objects")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    for path in sorted(args.pairs.glob("*.npz")):
        number = int("".join(c for c in path.stem if c.isdigit()))
        with np.load(path, allow_pickle=False) as data:
            ct, body, spacing = data["ct"].astype(np.float32), data["body"], data["spacing"]
        steps = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
        kept = slice(END_SLICES, len(ct) - END_SLICES)
        for name, half in (("half", True), ("full", False)):
            target = args.out / name / "evaluation" / path.name
            if target.exists():
                continue
            setup = protocol(number, half=half)
            fov = _seen(ct.shape, steps, setup)
            made = np.where(fov, scan(ct, steps, setup, number), -1000)
            target.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                target,
                cbct=np.rint(np.clip(made, -1000, 3000)).astype(np.int16)[kept],
                ct=ct.astype(np.int16)[kept],
                body=(body & fov)[kept],
                spacing=spacing,
                name=np.array(path.stem),
            )
            off = (made - ct)[body & fov]
            print(
                f"{name} {path.stem} raw {np.abs(off).mean():.1f} ({off.mean():+.1f}) HU",
                flush=True,
            )


if __name__ == "__main__":
    main()
