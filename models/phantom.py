"""A procedural thorax patient: analytic anatomy in millimeters, free of any patient's data.

The anatomy is defined in continuous patient coordinates and sampled on any grid, so the planning
CT, the CT on the grid of a cone-beam CT and a coarse dose grid of one patient agree exactly, and
`Day` gives the same patient on another day (shift, smooth deformation, other gas). Left and right
differ on purpose (heart, stomach, liver, target): a mirrored image cannot pass unseen.

Conventions: patient LPS in mm for a head-first supine axial scan; arrays (slice, row, column)
with slice towards the head (+z), row towards posterior (+y), column towards patient left (+x).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.canvas import (
    Canvas,
    Mask,
    Space,
    Vector,
    Volume,
    axes,
    superellipse,
    voxel_grid,
    waves,
)

LEVEL_MM = 24.0
"""Distance between two vertebrae, and between two ribs."""
STREAK_SD = 1.7
"""Texture above this many SD is fat between the muscles."""
COUCH_HALF_WIDTH_MM, COUCH_SHELL_MM = 235.0, 2.5
COUCH_SHELL_HU, COUCH_FOAM_HU = -150.0, -950.0
FAT_HU, MUSCLE_HU, BLOOD_HU = -100.0, 50.0, 42.0
CORTICAL_HU, MARROW_HU, CARTILAGE_HU = 800.0, 260.0, 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """How the patient of one day differs from the reference day."""

    shift_mm: Vector = (4.0, -3.0, 5.0)
    """Where the patient lies: added to every position of the anatomy, LPS."""
    amplitude_mm: float = 3.0
    """Largest displacement of the smooth deformation, about."""
    gas: float = 1.6
    """Stomach gas relative to the reference day (length scale)."""
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A sampled patient with its truth."""

    hu: Volume
    """Shape (slices, rows, columns), HU."""
    labels: Mapping[str, Mask]
    """TG-263 name -> mask, same shape: External, Lung_L, Lung_R, Heart, Trachea, Esophagus,
    SpinalCanal, SpinalCord, Bones, Liver, GTV. Lungs exclude the GTV."""
    spacing: Vector
    """(slice, row, column), mm."""
    origin: Vector
    """Center of voxel (0, 0, 0), patient LPS (x, y, z), mm."""
    target: Vector
    """Center of the GTV on this day, patient LPS (x, y, z), mm: the isocenter."""


def thorax(
    shape: tuple[int, int, int],
    spacing: Vector,
    seed: int,
    *,
    day: Day | None = None,
    center: Vector = (0.0, 0.0, 0.0),
    noise_hu: float = 12.0,
    couch: bool = True,
) -> Phantom:
    """Sample a thorax patient.

    Parameters
    ----------
    shape : (slices, rows, columns)
        The body is about 350 x 230 mm and any length; lungs reach from z = -80 to 115 mm.
    spacing : (slice, row, column), mm
    seed : int
        The patient: size, fat, vessels, texture, target.
    day : Day, optional
        Another day of the same patient; None is the reference day of the planning CT.
    center : (x, y, z), mm
        Where the middle of the grid lies in patient coordinates.
    noise_hu : float
        SD of the image noise, HU; differs from grid to grid.
    couch : bool
        Paint the table top.

    Returns
    -------
    Phantom
        The same arguments give the same bytes.
    """
    patient = np.random.default_rng([seed, 1])
    origin, grid = voxel_grid(shape, spacing, center)
    space = _anatomical(grid, max(spacing[1], spacing[2]), day)
    target = _vector(np.array([-72.0, 6.0, 24.0]) + patient.uniform(-4, 4, 3))
    canvas = Canvas(space)
    labels = _paint(canvas, patient, target, 1.0 if day is None else day.gas)
    if couch:
        _paint_couch(canvas.hu, grid)
    noise = np.random.default_rng([seed, 2, *shape, 0 if day is None else day.seed + 1])
    canvas.hu += noise.normal(0, noise_hu, shape).astype(np.float32)
    return Phantom(
        hu=np.clip(np.round(canvas.hu), -1024, 3071).astype(np.float32),
        labels=labels,
        spacing=spacing,
        origin=origin,
        target=target if day is None else _on_day(target, day),
    )


def dose(
    phantom: Phantom,
    *,
    prescription_gy: float = 60.0,
    beams: int = 5,
    field_mm: float = 56.0,
) -> Volume:
    """Return the dose [Gy] of coplanar square fields on the target: exponential with penumbra.

    No dose engine: depth is the path inside an ellipse of the body's size, lung is not corrected
    for. It has the shape of a plan (hot target, entrance dose, steep flanks) and is exact to
    repeat on any grid, since nothing is normalized to voxels.

    Returns
    -------
    ndarray, shape of `phantom.hu`, float32 [Gy]
        The isocenter receives 1.04 x `prescription_gy`.
    """
    z, y, x = axes(phantom.hu.shape, phantom.spacing, phantom.origin)
    total = np.zeros(phantom.hu.shape, dtype=np.float32)
    px, py, pz = (np.full((1, 1, 1), c, dtype=np.float32) for c in phantom.target)
    at_isocenter = 0.0
    for angle in np.arange(beams) * 2 * np.pi / beams + np.pi / 10:
        direction = (np.sin(angle), np.cos(angle))  # of flight, in the x-y plane
        total += _beam(x, y, z, phantom.target, direction, field_mm)
        at_isocenter += _beam(px, py, pz, phantom.target, direction, field_mm).item()
    return np.asarray(total * (1.04 * prescription_gy / at_isocenter), dtype=np.float32)


def _beam(
    x: Volume, y: Volume, z: Volume, target: Vector, direction: tuple[float, float], field: float
) -> Volume:
    across = (x - target[0]) * direction[1] - (y - target[1]) * direction[0]
    lateral = np.ones(1, dtype=np.float32)
    for offset in (across, z - target[2]):
        edge = (np.abs(offset) - field / 2) / 2.6  # 80-20 % penumbra of 7 mm
        lateral = lateral / (1 + np.exp(np.clip(edge, -40, 40)))
    a, b = 172.0, 114.0
    u, v = direction[0] / a, direction[1] / b
    aa, bb = u * u + v * v, x / a * u + y / b * v
    root = bb * bb - aa * ((x / a) ** 2 + (y / b) ** 2 - 1)
    depth = np.maximum(bb + np.sqrt(np.maximum(root, 0)), 0) / aa
    inside = (x / a) ** 2 + (y / b) ** 2 < 1
    build_up = 1 - 0.6 * np.exp(-depth / 4)
    return np.asarray(lateral * np.exp(-0.0045 * depth) * build_up * inside, dtype=np.float32)


def _displacement(points: tuple[Volume, Volume, Volume], day: Day) -> tuple[Volume, Volume, Volume]:
    """Return what to add to a position of `day` to find the same tissue on the reference day."""
    rng = np.random.default_rng([day.seed, 3])
    fields = [waves(rng, points, 170.0, 4) for _ in range(3)]
    scale = np.float32(day.amplitude_mm / 2)  # the sum of four waves peaks near 2 SD
    dx, dy, dz = (scale * f - np.float32(s) for f, s in zip(fields, day.shift_mm, strict=True))
    return dx, dy, dz


def _anatomical(grid: tuple[Volume, Volume, Volume], edge_mm: float, day: Day | None) -> Space:
    x, y, z = grid
    if day is not None:
        dx, dy, dz = _displacement(grid, day)
        x, y, z = x + dx, y + dy, z + dz
    return Space(x=x, y=y, z=z, edge_mm=edge_mm)


def _on_day(point: Vector, day: Day) -> Vector:
    """Return where a point of the reference day lies on `day`: a fixed-point iteration."""
    q = np.asarray(point, dtype=np.float64)
    p = q + day.shift_mm
    for _ in range(20):
        at = tuple(np.array([c], dtype=np.float32) for c in p)
        d = _displacement((at[0], at[1], at[2]), day)
        p = q - np.array([float(c[0]) for c in d])
    return float(p[0]), float(p[1]), float(p[2])


def _paint(canvas: Canvas, rng: np.random.Generator, target: Vector, gas: float) -> dict[str, Mask]:
    """Paint all tissues, outside first, and return the masks."""
    s = canvas.space
    size, fat_mm = rng.uniform(0.96, 1.04), rng.uniform(11.0, 17.0)
    texture = waves(rng, (s.x, s.y, s.z), 22.0, 12)
    body = _body(s, size)
    external = canvas.paint(body, MUSCLE_HU)  # skin
    canvas.paint(body + 2, FAT_HU + 8 * texture)
    canvas.paint(body + fat_mm, MUSCLE_HU + 12 * texture - 90 * (texture > STREAK_SD))
    cage = _cage(s, size)
    dome = _diaphragm(s)
    labels = {"External": external}
    labels["Liver"] = _paint_abdomen(canvas, cage, dome, texture, gas)
    canvas.paint(np.maximum(cage, dome), -60 + 45 * texture)  # mediastinal fat, then organs
    heart = s.ellipsoid((24.0, -20.0, -22.0), (50.0, 42.0, 46.0))
    spine = _spine(s)
    lungs = _paint_lungs(canvas, rng, cage, np.maximum(dome, -heart - 2), spine)
    labels["Heart"] = canvas.paint(
        np.maximum(np.maximum(heart, cage), dome), BLOOD_HU + 4 * texture
    )
    canvas.paint(s.tube((23.0, 36.0, -400.0), (23.0, 36.0, 48.0), 12.0), BLOOD_HU)  # aorta
    labels |= _paint_airways(canvas)
    gtv = s.ellipsoid(target, (20.0, 17.0, 18.0)) + 1.5 * waves(rng, (s.x, s.y, s.z), 14.0, 8)
    labels["GTV"] = canvas.paint(np.maximum(gtv, cage + 2), 35 + 6 * texture)
    labels["Bones"] = _paint_bones(canvas, spine, size)
    labels |= _paint_canal(canvas)
    labels["Bones"] &= ~labels["SpinalCanal"]
    inside = ~(labels["GTV"] | labels["Trachea"] | labels["Bones"] | labels["Heart"])
    return labels | {name: mask & inside for name, mask in lungs.items()}


def _body(s: Space, size: float) -> Volume:
    taper = 1 + 0.03 * np.tanh(s.z / 60)
    return superellipse(s.x, s.y, 172 * size * taper, 114 * size * taper)


def _cage(s: Space, size: float) -> Volume:
    """Return the signed distance [mm] to the inside of the rib cage, narrow at the apex."""
    rise = np.clip((s.z - 30) / 92, 0, 0.98)
    narrow = size * np.sqrt(1 - rise**2)
    return np.maximum(superellipse(s.x, s.y + 4, 130 * narrow, 82 * narrow), s.z - 118)


def _diaphragm(s: Space) -> Volume:
    """Return the signed distance [mm] below the two domes (< 0 above them); right is higher."""
    right = -34 - 38 * ((s.x + 68) / 70) ** 2 - 30 * ((s.y + 5) / 75) ** 2
    left = -48 - 38 * ((s.x - 68) / 70) ** 2 - 30 * ((s.y + 5) / 75) ** 2
    return np.asarray(np.maximum(right, left) - s.z, dtype=np.float32) * 0.8


def _spine(s: Space) -> Volume:
    """Return the signed distance [mm] to vertebrae with their arches and processes."""
    level = np.mod(s.z, LEVEL_MM) - LEVEL_MM / 2
    column = np.sqrt((s.x / 1.15) ** 2 + (s.y - 52) ** 2) - 16
    arch = np.sqrt(s.x**2 + (s.y - 74) ** 2) - 15
    process = np.maximum(np.abs(s.x) - 4.5, np.maximum(80 - s.y, s.y - 98))
    process = np.maximum(process, np.abs(level) - 8)
    wings = np.maximum(np.abs(s.y - 70 - np.abs(s.x) / 6) - 5, np.abs(s.x) - 34)
    wings = np.maximum(wings, np.abs(level) - 6)
    return np.asarray(np.minimum.reduce([column, arch, process, wings]), dtype=np.float32)


def _paint_abdomen(canvas: Canvas, cage: Volume, dome: Volume, texture: Volume, gas: float) -> Mask:
    """Paint liver (right), spleen and stomach (left) below the domes; return the liver."""
    s = canvas.space
    below = np.maximum(cage, -dome)
    canvas.paint(below, FAT_HU + 10 * texture)
    liver = np.maximum(below + 1.5, s.ellipsoid((-48.0, -2.0, -80.0), (94.0, 86.0, 62.0)))
    mask = canvas.paint(liver, 58 + 4 * texture)
    canvas.paint(np.maximum(below, s.ellipsoid((88.0, 34.0, -92.0), (32.0, 36.0, 44.0))), 48.0)
    stomach = np.maximum(below, s.ellipsoid((66.0, -28.0, -92.0), (40.0, 36.0, 40.0)))
    canvas.paint(stomach, 30.0)
    radii = (18.0 * gas, 11.0 * gas, 14.0 * gas)
    bubble = s.ellipsoid((64.0, -40.0, -88.0), radii)
    canvas.paint(np.maximum(stomach + 4, bubble), -960.0)
    return mask


def _paint_lungs(
    canvas: Canvas, rng: np.random.Generator, cage: Volume, limits: Volume, spine: Volume
) -> dict[str, Mask]:
    """Paint both lungs with vessels; return Lung_L and Lung_R."""
    s = canvas.space
    limits = np.maximum(np.maximum(cage + 1, limits), -spine - 4)
    waist = 22 + 6 * np.tanh(s.y / 40)  # half-width of the mediastinum
    tissue = -800 + 0.5 * s.y + 24 * waves(rng, (s.x, s.y, s.z), 9.0, 10)
    labels = {}
    for name, side in (("Lung_L", 1.0), ("Lung_R", -1.0)):
        lung = np.maximum(limits, waist - side * s.x)
        labels[name] = canvas.paint(lung, tissue)
        mask = lung < -1
        vessels = _vessels(s.select(mask), rng, side)
        canvas.hu[mask] += vessels * (35 - canvas.hu[mask])
    return labels


def _vessels(s: Space, rng: np.random.Generator, side: float) -> Volume:
    """Return the filled fraction of a branching tree that starts at the hilum."""
    hilum = np.array([side * 30.0, 8.0, 2.0])
    filled = np.zeros(s.x.shape, dtype=np.float32)
    for _ in range(14):
        direction = rng.normal(size=3) * (0.6, 0.8, 1.1) + (side * 0.7, 0, 0)
        direction /= np.linalg.norm(direction)
        fork = hilum + direction * rng.uniform(30, 45)
        branches = [(hilum, fork, 3.6)]
        for _ in range(2):
            turned = direction + rng.normal(size=3) * 0.45
            branches.append((fork, fork + turned / np.linalg.norm(turned) * 45, 1.7))
        for start, end, radius in branches:
            tube = s.tube(_vector(start), _vector(end), radius)
            np.maximum(filled, s.inside(tube), out=filled)
    return filled


def _vector(a: NDArray[np.float64]) -> Vector:
    return float(a[0]), float(a[1]), float(a[2])


def _paint_airways(canvas: Canvas) -> dict[str, Mask]:
    """Paint esophagus with a little gas, trachea and main bronchi."""
    s = canvas.space
    esophagus = np.sqrt(((s.x - 7) / 9) ** 2 + ((s.y - 26) / 6) ** 2) - 1
    label = canvas.paint(np.asarray(esophagus * 6, dtype=np.float32), 38.0)
    canvas.paint(s.ellipsoid((7.0, 26.0, 40.0), (3.0, 2.5, 16.0)), -700.0)
    trachea = s.tube((0.0, 4.0, 28.0), (0.0, -2.0, 400.0), 9.0)
    for side, length in ((1.0, 30.0), (-1.0, 26.0)):
        bronchus = s.tube((0.0, 4.0, 28.0), (side * length, 8.0, 6.0), 6.0)
        trachea = np.minimum(trachea, bronchus)
    canvas.paint(trachea - 1.5, 30.0)  # wall
    return {"Esophagus": label & (trachea >= 0), "Trachea": canvas.paint(trachea, -990.0)}


def _paint_bones(canvas: Canvas, spine: Volume, size: float) -> Mask:
    """Paint vertebrae, discs, ribs, sternum and shoulder blades: cortical rim, marrow inside."""
    s = canvas.space
    drop = 34 * np.clip((80 - s.y) / 160, 0, 1)  # ribs slope down towards the front
    level = np.mod(s.z + drop, LEVEL_MM) - LEVEL_MM / 2
    rib = np.maximum(np.abs(_cage(s, size) - 6.5) - 4, np.abs(level) - 5.5)
    rib = np.maximum(rib, 26 - np.abs(s.x))  # none at the sternum and the spine
    sternum = np.maximum(np.abs(s.x) - 17, np.abs(s.y + 93 * size) - 5.5)
    sternum = np.maximum(sternum, np.abs(s.z - 20) - 70)
    blade = np.abs(s.y - 92 * size + 0.42 * (np.abs(s.x) - 60)) - 3.5
    blade = np.maximum(blade, np.abs(np.abs(s.x) - 88) - 34)
    blade = np.maximum(blade, np.abs(s.z - 60) - 52)
    bones = np.asarray(np.minimum.reduce([spine, rib, sternum, blade]), dtype=np.float32)
    mask = canvas.paint(bones, CORTICAL_HU)
    canvas.paint(bones + 2.2, MARROW_HU)
    gap = np.abs(np.mod(s.z + LEVEL_MM / 2, LEVEL_MM) - LEVEL_MM / 2) - 2.5
    disc = np.maximum(np.sqrt((s.x / 1.15) ** 2 + (s.y - 52) ** 2) - 17, gap)
    canvas.paint(np.asarray(disc, dtype=np.float32), CARTILAGE_HU)
    return np.asarray(mask & (disc >= 0))


def _paint_canal(canvas: Canvas) -> dict[str, Mask]:
    s = canvas.space
    canal = np.sqrt((s.x / 1.15) ** 2 + (s.y - 74) ** 2) - 9
    cord = np.sqrt((s.x / 1.2) ** 2 + (s.y - 74) ** 2) - 5
    return {
        "SpinalCanal": canvas.paint(np.asarray(canal, dtype=np.float32), 12.0),
        "SpinalCord": canvas.paint(np.asarray(cord, dtype=np.float32), 40.0),
    }


def _paint_couch(hu: Volume, grid: tuple[Volume, Volume, Volume]) -> None:
    """Paint a carbon table top under the patient, in place."""
    x, y, _ = grid
    top = 122.0 - 6 * (x / 250) ** 2  # slightly hollow
    shell = np.abs(y - top - 20) - 20
    within = (shell < 0) & (np.abs(x) < COUCH_HALF_WIDTH_MM) & (hu < COUCH_FOAM_HU)
    hu[within] = np.where(shell[within] > -COUCH_SHELL_MM, COUCH_SHELL_HU, COUCH_FOAM_HU)
