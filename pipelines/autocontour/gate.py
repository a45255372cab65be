"""Whether an image is one that these methods and its model were made for.

Three looks, in one place: at the headers (cone-beam CT, projections), at the values (air and soft
tissue where Hounsfield units have them, no reversed contrast), and at the body (which region is it,
see `pipelines.imaging.region`). What cannot give right contours is refused.
"""

from typing import Final

import numpy as np
from scipy import ndimage

from pipelines.api import InputRejected
from pipelines.autocontour.morphology import IN_PLANE
from pipelines.dicom.read import text
from pipelines.dicom.volume import CtVolume
from pipelines.imaging.grid import Mask, WorkImage

CBCT_WORDS: Final = ("cone-beam", "cone beam", "cbct", "on-board imager", "obi", "xvi")
"""In manufacturer or model: the image is a cone-beam CT, whose values these methods do not fit."""
PROJECTIONS: Final = frozenset({"MIP", "MINIP", "AVERAGE_MIP", "PROJECTION IMAGE", "MPR_THICK"})
"""In Image Type: values of several places in one pixel."""
LEAST_SLICES: Final = 5
AIR_HU: Final = (-1100.0, -850.0)
"""Around the patient; scanners differ by some 50 HU, foam and blankets are denser."""
SOFT_HU: Final = (-150.0, 120.0)
"""Where most of a body lies: fat to muscle."""
LEAST_SOFT: Final = 0.2
"""Share of the body with the HU of soft tissue; a thorax that is mostly lung has more."""
OUTSIDE_CELLS: Final = 200
"""Places around the body that are needed to judge the air."""
COARSE: Final = (4, 2, 2)
"""Every fourth slice, every second row and column of the work image: enough to judge the air."""
AROUND_CELLS: Final = 6
"""So many of those places around the body count: farther out scanners write what they like."""
SCALE_HINT: Final = (
    "correct the rescale slope and intercept at the source and send the series again"
)


def check_headers(volume: CtVolume) -> None:
    """Refuse what the headers say is no CT to contour.

    Raises
    ------
    InputRejected
        For cone-beam CT, projections and images of too few slices.
    """
    header = volume.headers[0]
    device = " ".join(text(header, k) for k in ("Manufacturer", "ManufacturerModelName")).lower()
    words = device.replace("/", " ").split()
    if any(word in device if " " in word or "-" in word else word in words for word in CBCT_WORDS):
        raise InputRejected(
            "a cone-beam CT is not contoured: its values are no Hounsfield units",
            hint="route it to synthetic_ct and contour the planning CT",
        )
    kinds = {str(v).upper() for v in header.get("ImageType") or []} & PROJECTIONS
    if kinds:
        raise InputRejected(f"a projection of the CT is not contoured (Image Type {min(kinds)})")
    if volume.geometry.shape[0] < LEAST_SLICES:
        raise InputRejected(f"{volume.geometry.shape[0]} slices are too few to find an organ in")


def check_contrast(image: WorkImage) -> None:
    """Refuse an image whose border is denser than its middle: dark and bright are reversed.

    Raises
    ------
    InputRejected
        Before a body is looked for: there is none in such an image.
    """
    rows, columns = image.hu.shape[1:]
    middle = image.hu[:, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    corners = image.hu[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    around, within = float(np.median(corners)), float(np.median(middle))
    if around > max(within, SOFT_HU[1]):
        raise InputRejected(
            f"dark and bright are reversed: {around:.0f} HU at the corners of the images, "
            f"{within:.0f} HU in their middle",
            hint="correct rescale slope or photometric interpretation at the source",
        )


def check_values(image: WorkImage, body: Mask, volume: CtVolume) -> None:
    """Refuse values that are no Hounsfield units.

    Parameters
    ----------
    image, body
        The work image, not cropped, and the body in it.
    volume
        The CT itself, whose values are as the scanner wrote them.

    Raises
    ------
    InputRejected
        Where air or soft tissue are not where they should be.
    """
    inside = image.hu[body]
    soft = float(np.mean((inside > SOFT_HU[0]) & (inside < SOFT_HU[1]))) if inside.size else 1.0
    if soft < LEAST_SOFT:
        raise InputRejected(
            f"the values are not Hounsfield units: only {100 * soft:.0f} % of the body lies "
            f"between {SOFT_HU[0]:g} and {SOFT_HU[1]:g} HU, where soft tissue is",
            hint=SCALE_HINT,
        )
    coarse = tuple(slice(None, None, step) for step in COARSE)
    around = ndimage.binary_dilation(body[coarse], IN_PLANE, AROUND_CELLS) & ~body[coarse]
    at = np.ix_(
        *(np.rint(c[s]).astype(np.intp) for c, s in zip(image.centers, coarse, strict=True))
    )
    if volume.padded is not None:
        around &= ~volume.padded[at]
    air = volume.hu[at][around]
    air = air[air < SOFT_HU[0]]
    if air.size < OUTSIDE_CELLS:
        return
    level = float(np.median(air))
    if not AIR_HU[0] <= level <= AIR_HU[1]:
        raise InputRejected(
            f"the values are not Hounsfield units: the air around the body reads {level:.0f}, not "
            "-1000",
            hint=SCALE_HINT,
        )
