"""The judge where our features and MIRP differ: definitions of IBSI written out as plain loops.

Nothing here shares code with `pipelines.radiomics`, and nothing is clever: each function follows
the formula in the IBSI reference manual (arXiv 1612.07003v11, section in its docstring) voxel by
voxel. The mesh is scikit-image's. Images are arrays
(slice, row, column) with voxels of 1 mm; levels are integers from 1 on.
"""

import itertools

import numpy as np
from numpy.polynomial import legendre
from scipy.spatial import ConvexHull
from skimage.measure import marching_cubes

DIRECTIONS = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0))
"""One of each of the 13 pairs of opposite neighbours."""
PEAK_RADIUS = 6.204
"""Of a sphere of 1 ml. [mm]"""


def peaks(image, mask):
    """Return local and global intensity peak (IBSI 3.2)."""
    places = np.argwhere(np.ones(image.shape, bool)).astype(float)
    inside = np.flatnonzero(mask.ravel())
    squared = (
        (places[inside] ** 2).sum(axis=1)[:, None]
        + (places**2).sum(axis=1)[None]
        - 2 * places[inside] @ places.T
    )
    near = squared <= PEAK_RADIUS**2 + 1e-9
    means = near @ image.ravel() / near.sum(axis=1)
    values = image.ravel()[inside]
    return {
        "loc_peak_loc": means[values == values.max()].max(),
        "loc_peak_glob": means.max(),
    }


def autocorrelation(image, mask):
    """Return Moran's I and Geary's C over all pairs, weighted by 1 / distance (IBSI 3.1.24-25)."""
    places, values = np.argwhere(mask).astype(float), image[mask]
    count, away = len(values), values - values.mean()
    if count < 2 or not away.any():
        return {}
    weights = product = square = 0.0
    for number in range(count):
        others = np.arange(count) != number
        near = 1 / np.linalg.norm(places[others] - places[number], axis=1)
        weights += near.sum()
        product += (near * away[number] * away[others]).sum()
        square += (near * (values[number] - values[others]) ** 2).sum()
    variance = (away**2).sum()
    return {
        "morph_moran_i": count / weights * product / variance,
        "morph_geary_c": (count - 1) / (2 * weights) * square / variance,
    }


def tables(mask):
    """Return (volume, area) of the mesh at 0.5 by three tables of scikit-image, and its vertices.

    They agree unless corners touch across the diagonal of a face: there one joins them, another
    does not, and IBSI names none.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    found = []
    for field, method in ((padded, "lorensen"), (1 - padded, "lorensen"), (padded, "lewiner")):
        vertices, faces, _, _ = marching_cubes(field, level=0.5, method=method)
        a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
        volume = abs((a * np.cross(b, c)).sum() / 6)
        found.append((volume, np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2))
    return np.array(found), vertices.astype(np.float64)


def mesh(image, mask, volume, area):
    """Return what rests on the mesh at 0.5 between voxel centres (IBSI 3.1).

    `volume` and `area` are ours: they must be those of the tables where these agree, to 1e-5
    (single precision), and within 2 % of their range where they do not (the polygon of a cell may
    be cut into triangles in several ways). All the rest follows from the two by the formulas.
    Nothing is returned if they do not.
    """
    found, vertices = tables(mask)
    low, high = found.min(axis=0), found.max(axis=0)
    margin = 1e-5 if np.allclose(low, high, rtol=1e-5) else 0.02
    if (low * (1 - margin) > (volume, area)).any() or ((volume, area) > high * (1 + margin)).any():
        return {}
    compact = 36 * np.pi * volume**2 / area**3
    hull, box = ConvexHull(vertices), np.ptp(vertices, axis=0)
    corners = vertices[hull.vertices]
    values = {
        "morph_volume": volume,
        "morph_area_mesh": area,
        "morph_av": area / volume,
        "morph_comp_1": volume / (np.sqrt(np.pi) * area**1.5),
        "morph_comp_2": compact,
        "morph_sph_dispr": compact ** (-1 / 3),
        "morph_sphericity": compact ** (1 / 3),
        "morph_asphericity": compact ** (-1 / 3) - 1,
        "morph_diam": max(np.linalg.norm(corners - one, axis=1).max() for one in corners),
        "morph_vol_dens_aabb": volume / box.prod(),
        "morph_area_dens_aabb": area / (2 * (box[[0, 0, 1]] * box[[1, 2, 2]]).sum()),
        "morph_vol_dens_conv_hull": volume / hull.volume,
        "morph_area_dens_conv_hull": area / hull.area,
        "morph_integ_int": volume * image[mask].mean(),
    }
    axes = 2 * np.sqrt(np.clip(np.linalg.eigvalsh(np.cov(np.argwhere(mask).T)), 0, None))
    if mask.sum() > 1 and axes[0] > 0:
        values["morph_vol_dens_aee"] = volume / (4 / 3 * np.pi * axes.prod())
        values["morph_area_dens_aee"] = area / ellipsoid_area(*axes)
    return values


def ellipsoid_area(c, b, a):
    """Return the area of an ellipsoid with semi-axes c <= b <= a by 20 terms (IBSI 3.1.17).

    (alpha beta)^n P_n((alpha^2 + beta^2) / (2 alpha beta)) is written as the polynomial that it
    is, so that equal axes (alpha or beta = 0) need no other formula.
    """
    alpha, beta = 1 - (b / a) ** 2, 1 - (c / a) ** 2  # their squares
    total = 0.0
    for degree in range(21):
        term = 0.0
        for power, factor in enumerate(legendre.leg2poly([0] * degree + [1])):
            if (degree - power) % 2 == 0:
                term += (
                    factor
                    * ((alpha + beta) / 2) ** power
                    * (alpha * beta) ** ((degree - power) // 2)
                )
        total += term / (1 - 4 * degree**2)
    return 4 * np.pi * a * b * total


def runs(levels, mask, step):
    """Return (level, length) of each run of a direction (IBSI 3.7)."""
    inside = {tuple(place) for place in np.argwhere(mask)}
    found = []
    for place in inside:
        level = levels[place]
        before = tuple(np.subtract(place, step))
        if before in inside and levels[before] == level:
            continue
        length, after = 1, tuple(np.add(place, step))
        while after in inside and levels[after] == level:
            length, after = length + 1, tuple(np.add(after, step))
        found.append((int(level), length))
    return found


def run_features(found, voxels):
    """Return the 16 features of a list of runs (IBSI 3.7.1-3.7.16)."""
    level, length = (np.array(column, float) for column in zip(*found, strict=True))
    total = len(found)
    _, of_level = np.unique(level, return_counts=True)
    _, of_length = np.unique(length, return_counts=True)
    _, of_both = np.unique(np.array(found), axis=0, return_counts=True)
    return {
        "sre": np.mean(length**-2),
        "lre": np.mean(length**2),
        "lgre": np.mean(level**-2),
        "hgre": np.mean(level**2),
        "srlge": np.mean(length**-2 * level**-2),
        "srhge": np.mean(length**-2 * level**2),
        "lrlge": np.mean(length**2 * level**-2),
        "lrhge": np.mean(length**2 * level**2),
        "glnu": (of_level**2).sum() / total,
        "glnu_norm": (of_level**2).sum() / total**2,
        "rlnu": (of_length**2).sum() / total,
        "rlnu_norm": (of_length**2).sum() / total**2,
        "r_perc": total / voxels,
        "gl_var": level.var(),
        "rl_var": length.var(),
        "rl_entr": -(of_both / total * np.log2(of_both / total)).sum(),
    }


def run_lengths(levels, mask):
    """Return the run length features, averaged over directions and of the merged matrix."""
    each = [runs(levels, mask, step) for step in DIRECTIONS]
    voxels = int(mask.sum())
    single = [run_features(found, voxels) for found in each]
    merged = run_features(list(itertools.chain(*each)), voxels * len(each))
    values = {f"rlm_{name}_3d_v_mrg": value for name, value in merged.items()}
    for name in merged:
        values[f"rlm_{name}_3d_avg"] = np.mean([one[name] for one in single])
    return values


def inverse_variance(levels, mask):
    """Return the averaged inverse variance of the co-occurrence matrices (IBSI 3.6.18).

    A direction without any pair has no matrix and is left out; one in which all pairs are equal
    has a matrix, and its inverse variance is 0.
    """
    inside = {tuple(place) for place in np.argwhere(mask)}
    single = []
    for step in DIRECTIONS:
        pairs = [
            abs(int(levels[place]) - int(levels[after]))
            for place in inside
            if (after := tuple(np.add(place, step))) in inside
        ]
        if pairs:
            single.append(np.mean([1 / gap**2 if gap else 0.0 for gap in pairs]))
    return {"cm_inv_var_d1_3d_avg": np.mean(single)} if single else {}
