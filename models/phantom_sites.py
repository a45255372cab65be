"""Procedural pelvis, abdomen and head: the anatomy that a network trained on CT crops has not seen.

Simpler than `models.phantom` and without labels: a source of training pairs, free of any patient's
data. Every patient differs in size, fat, organs and gas; left and right differ by chance.
Conventions as in `models.phantom`: LPS mm, head first supine; arrays (slice, row, column).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.canvas import Canvas, Space, Vector, Volume, superellipse, voxel_grid, waves

FAT_HU, MUSCLE_HU, GAS_HU = -100.0, 50.0, -980.0
CORTICAL_HU, MARROW_HU, DISC_HU = 900.0, 240.0, 95.0
SKIN_MM: Final = 2.0
LEVEL_MM: Final = 34.0
"""Distance between two lumbar vertebrae."""
TEETH_HU: Final = 1900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """What every painter needs."""

    canvas: Canvas
    random: np.random.Generator
    texture: Volume
    """Smooth random field, SD 1."""

    @property
    def space(self) -> Space:
        return self.canvas.space

    def flesh(self, body: Volume, fat_mm: float) -> None:
        """Paint skin, fat and muscle with streaks of fat."""
        self.canvas.paint(body, MUSCLE_HU)
        self.canvas.paint(body + SKIN_MM, FAT_HU + 8 * self.texture)
        streaks = -100 * (self.texture > 1.3)  # noqa: PLR2004 (SD of the texture)
        self.canvas.paint(body + fat_mm, MUSCLE_HU + 10 * self.texture + streaks)

    def bone(self, shape: Volume, rim_mm: float) -> None:
        """Paint a cortical rim with marrow inside."""
        self.canvas.paint(shape, CORTICAL_HU + float(self.random.uniform(-250, 350)))
        self.canvas.paint(shape + rim_mm, MARROW_HU + 70 * self.texture)

    def organ(self, center: Vector, radii: Vector, hu: float, within: Volume) -> None:
        """Paint an ellipsoid of about this place and size, as far as it lies `within`."""
        moved = tuple(float(c + self.random.normal(0, 5)) for c in center)
        sized = tuple(float(r * self.random.uniform(0.8, 1.2)) for r in radii)
        shape = self.space.ellipsoid((moved[0], moved[1], moved[2]), (sized[0], sized[1], sized[2]))
        self.canvas.paint(np.maximum(shape + 2 * self.texture, within), hu + 3 * self.texture)


def patient(
    site: str, shape: tuple[int, int, int], spacing: Vector, seed: int, *, noise_hu: float = 8.0
) -> Volume:
    """Return a patient's CT.

    Parameters
    ----------
    site : str
        A key of `SITES`.
    shape : (slices, rows, columns)
    spacing : (slice, row, column), mm
    seed : int
        The patient; the same arguments give the same bytes.
    noise_hu : float
        SD of the image noise, HU.

    Returns
    -------
    ndarray, float32, HU in [-1000, 3000]
    """
    random = np.random.default_rng([seed, 5])
    _, (x, y, z) = voxel_grid(shape, spacing, (0.0, 0.0, float(random.uniform(-25, 25))))
    scale, turn = random.uniform(0.88, 1.12), random.normal(0, 0.05)
    moved = random.normal(0, 10, 2)
    u, v = x - np.float32(moved[0]), y - np.float32(moved[1])
    space = Space(
        x=np.asarray((np.cos(turn) * u + np.sin(turn) * v) / scale, np.float32),
        y=np.asarray((np.cos(turn) * v - np.sin(turn) * u) / scale, np.float32),
        z=np.asarray(z, np.float32),
        edge_mm=max(spacing[1:]),
    )
    texture = waves(random, (space.x, space.y, space.z), float(random.uniform(10, 26)), 10)
    canvas = Canvas(space)
    SITES[site](_Patient(canvas=canvas, random=random, texture=texture))
    canvas.hu += random.normal(0, noise_hu, shape).astype(np.float32)
    return np.clip(canvas.hu, -1000, 3000)


def _pelvis(p: _Patient) -> None:
    s, random = p.space, p.random
    body = superellipse(s.x, s.y, random.uniform(155, 200), random.uniform(95, 130))
    fat_mm = float(random.uniform(8, 35))
    p.flesh(body, fat_mm)
    cavity = superellipse(s.x, s.y, 95, 66)
    p.canvas.paint(cavity, FAT_HU + 15 * p.texture)
    p.organ((0, -30, 0), (38, 30, 32), 8, cavity)  # bladder
    p.organ((0, 8, -10), (22, 18, 22), 40, cavity)  # prostate or uterus
    p.organ((0, 38, 0), (16, 17, 90), 35, cavity)  # rectum
    if random.random() < 0.6:  # noqa: PLR2004 (share of patients)
        p.organ((4, 36, 0), (10, 11, 30), GAS_HU, cavity)
    for _ in range(random.integers(2, 7)):
        place = (float(random.uniform(-70, 70)), float(random.uniform(-55, 0)), 55.0)
        p.organ(place, (15, 13, 20), 30, cavity)
        if random.random() < 0.4:  # noqa: PLR2004 (share of bowel loops)
            p.organ(place, (8, 7, 10), GAS_HU, cavity)
    for side in (-1.0, 1.0):
        wing = np.abs(s.y - 35 + 0.35 * s.z - 0.4 * side * (s.x - side * 95)) - 8
        wing = np.maximum(np.maximum(wing, np.abs(side * s.x - 92) - 38), 12 - s.z)
        hip = np.maximum(s.ellipsoid((side * 88, 0.0, 0.0), (32, 34, 34)), -wing)
        p.bone(np.minimum(wing, hip), 2.5)
        p.bone(s.ellipsoid((side * 92, 0.0, 0.0), (23, 23, 23)), 2.0)
        shaft = s.tube((side * 118, 8.0, -22.0), (side * 122, 12.0, -300.0), 16)
        neck = s.tube((side * 92, 0.0, 0.0), (side * 118, 8.0, -22.0), 15)
        p.bone(np.minimum(shaft, neck), float(random.uniform(3, 6)))
        p.bone(s.tube((side * 20, -45.0, -18.0), (side * 60, -20.0, -5.0), 9), 2.0)
    sacrum = np.maximum(np.sqrt((s.x / 1.7) ** 2 + (s.y - 62) ** 2) - 24, 8 - s.z)
    p.bone(np.asarray(sacrum, np.float32), 2.0)


def _abdomen(p: _Patient) -> None:
    s, random = p.space, p.random
    body = superellipse(s.x, s.y, random.uniform(140, 185), random.uniform(95, 125))
    fat_mm = float(random.uniform(6, 35))
    p.flesh(body, fat_mm)
    cavity = body + fat_mm + 12
    p.canvas.paint(cavity, FAT_HU + 12 * p.texture)
    p.organ((-70, -15, 30), (70, 65, 70), 58, cavity)  # liver
    p.organ((90, 30, 40), (30, 35, 45), 48, cavity)  # spleen
    for side in (-1.0, 1.0):
        p.organ((side * 62, 42, 0), (26, 24, 52), float(random.uniform(30, 90)), cavity)  # kidney
        p.organ((side * 42, 55, -40), (22, 20, 90), 52, cavity)  # psoas
    p.organ((8, 38, 0), (11, 11, 300), 42, cavity)  # aorta
    p.organ((45, -45, 40), (36, 30, 34), 25, cavity)  # stomach
    p.organ((45, -55, 40), (22, 12, 18), GAS_HU, cavity)
    for _ in range(random.integers(6, 14)):
        place = (float(random.uniform(-90, 90)), float(random.uniform(-70, 0)), 0.0)
        place = (place[0], place[1], float(random.uniform(-70, 10)))
        p.organ(place, (17, 15, 22), float(random.uniform(15, 45)), cavity)
        if random.random() < 0.35:  # noqa: PLR2004 (share of bowel loops)
            p.organ(place, (9, 8, 12), GAS_HU, cavity)
    _spine(p, 58.0, 23.0)
    drop = 40 * np.clip((60 - s.y) / 160, 0, 1)
    level = np.mod(s.z + drop, 26) - 13
    rib = np.maximum(np.abs(cavity + 6) - 4, np.abs(level) - 5)
    p.bone(np.asarray(np.maximum(rib, 20 - s.z), np.float32), 1.8)


def _spine(p: _Patient, back_mm: float, radius_mm: float) -> None:
    """Paint a column of vertebrae with discs, arches and canal around (x=0, y=`back_mm`)."""
    s = p.space
    round_mm = np.sqrt((s.x / 1.15) ** 2 + (s.y - back_mm) ** 2)
    column = round_mm - radius_mm
    arch_y = back_mm + radius_mm * 1.35
    arch = np.sqrt(s.x**2 + (s.y - arch_y) ** 2) - radius_mm * 0.8
    level = np.mod(s.z, LEVEL_MM) - LEVEL_MM / 2
    process = np.maximum(np.abs(s.x) - 4, np.abs(s.y - arch_y - radius_mm) - radius_mm * 0.7)
    process = np.maximum(process, np.abs(level) - 9)
    wings = np.maximum(np.abs(s.y - arch_y) - 5, np.abs(s.x) - 2 * radius_mm)
    wings = np.maximum(wings, np.abs(level) - 6)
    p.bone(np.asarray(np.minimum.reduce([column, arch, process, wings]), np.float32), 2.0)
    disc = np.maximum(round_mm - radius_mm, np.abs(level - LEVEL_MM / 2 + 4) - 4)
    p.canvas.paint(np.asarray(disc, np.float32), DISC_HU)
    canal = np.sqrt((s.x / 1.2) ** 2 + (s.y - arch_y) ** 2) - radius_mm * 0.42
    p.canvas.paint(np.asarray(canal, np.float32), 25.0)


def _head(p: _Patient) -> None:
    s, random = p.space, p.random
    skull = s.ellipsoid((0, 5, 55), (random.uniform(70, 80), random.uniform(88, 100), 82))
    neck = np.maximum(superellipse(s.x, s.y - 30, 62, random.uniform(52, 66)), s.z - 30)
    jaw = np.maximum(superellipse(s.x, s.y + 30, 52, 55), np.abs(s.z + 10) - 42)
    nose = np.maximum(superellipse(s.x, s.y + 70, 40, 28), np.abs(s.z - 15) - 40)
    shoulders = np.maximum(superellipse(s.x, s.y - 35, 190, 72), s.z + 95)
    outline = np.minimum.reduce([skull - 5, neck, jaw, nose, shoulders])
    p.flesh(np.asarray(outline, np.float32), float(random.uniform(4, 9)))
    p.canvas.paint(skull, CORTICAL_HU + float(random.uniform(-100, 500)))
    p.canvas.paint(skull + 2.5, MARROW_HU + 300)
    p.canvas.paint(skull + 5, CORTICAL_HU)
    brain = skull + float(random.uniform(6, 9))
    p.canvas.paint(brain, 34 + 5 * p.texture)
    for side in (-1.0, 1.0):
        p.organ((side * 14, 5, 65), (7, 26, 12), 8, brain)  # ventricle
        p.canvas.paint(s.ellipsoid((side * 32, -62, 20), (13, 13, 13)), 15.0)  # eye
        p.canvas.paint(s.ellipsoid((side * 27, -58, -12), (13, 17, 16)), GAS_HU)  # maxillary sinus
        p.canvas.paint(s.ellipsoid((side * 55, 25, -8), (9, 11, 14)), -700.0)  # mastoid
        branch = s.tube((side * 48, -5.0, -2.0), (side * 44, -18.0, -48.0), 7)
        body = s.tube((side * 44, -18.0, -48.0), (0.0, -78.0, -52.0), 7)
        p.bone(np.minimum(branch, body), 2.0)
    arc = np.abs(np.sqrt((s.x / 0.8) ** 2 + (s.y + 30) ** 2) - 45) - 4
    teeth = np.maximum(np.maximum(arc, s.y + 42), np.abs(s.z + 38) - 9)
    gaps = np.sin(s.x * 0.8) < 0.6  # noqa: PLR2004 (between the teeth)
    p.canvas.paint(np.asarray(np.where(gaps, teeth, 5), np.float32), TEETH_HU)
    p.canvas.paint(s.tube((0.0, 2.0, 0.0), (0.0, 8.0, -400.0), 8), GAS_HU)  # airway
    if random.random() < 0.5:  # noqa: PLR2004 (share of open mouths)
        p.organ((0, -40, -22), (18, 22, 6), GAS_HU, jaw)
    _spine_below(p)


def _spine_below(p: _Patient) -> None:
    """Paint the cervical spine: a lumbar one, smaller, as far as the skull base."""
    s = p.space
    neck = s.z < -5  # noqa: PLR2004 (mm)
    before = p.canvas.hu.copy()
    _spine(p, 34.0, 10.0)
    p.canvas.hu[~neck] = before[~neck]


SITES: Final[Mapping[str, Callable[[_Patient], None]]] = {
    "pelvis": _pelvis,
    "abdomen": _abdomen,
    "head": _head,
}
"""Site -> painter."""
