"""Our features against MIRP on random arrays: ``make oracle``, apart from the test suite.

MIRP (EUPL) is an oracle only: it lives in a virtual environment of its own, is fed with arrays and
is no dependency of anything here. Every feature that both know is compared to `TOLERANCE`
relative. Where the two differ a third opinion decides: `brute_force`, the definition of IBSI in
plain loops. What it says of us is counted apart, by the reason that MIRP differs. Exit code 1: a
value is neither MIRP's nor what brute force gives, or there is no third opinion on it.
"""

import argparse
import logging
import sys
import time
from collections import defaultdict

import numpy as np

from pipelines.radiomics.engine import BinNumber, BinSize, Method, features
from tests.conformance.ibsi_reference import VALUES
from tests.oracle import brute_force

TOLERANCE = 1e-6
FAMILIES = (
    "morphology", "autocorrelation", "statistics", "histogram", "ivh", "local", "glcm", "glrlm",
    "glszm", "gldzm", "neighborhood",
)  # fmt: skip
SUFFIX = {
    ("cm", "merged"): "_d1_3d_v_mrg", ("cm", "averaged"): "_d1_3d_avg",
    ("rlm", "merged"): "_3d_v_mrg", ("rlm", "averaged"): "_3d_avg",
    ("szm", ""): "_3d", ("dzm", ""): "_3d", ("ngt", ""): "_3d", ("ngl", ""): "_d1_a0.0_3d",
}  # fmt: skip
"""How MIRP names a tag of the reference table in its output."""


SINGLE = 1e-5
"""Tolerance of what rests on the mesh, which MIRP holds in single precision."""
MESH = (
    "morph_volume", "morph_area", "morph_av", "morph_comp", "morph_sph", "morph_asph",
    "morph_vol_dens", "morph_integ", "morph_diam",
)  # fmt: skip
MANY_MESHES = (
    "corners that touch across a diagonal have no one mesh, or two axes are equal; ours is within "
    "2 % of the tables of scikit-image, and what rests on it follows the formulas"
)
OPINIONS = (
    (MESH, lambda image, levels, mask, mine: brute_force.mesh(
        image, mask, mine["morph_volume"], mine["morph_area_mesh"]), MANY_MESHES),
    (("loc_peak",), lambda image, levels, mask, mine: brute_force.peaks(image, mask),
     "the sphere of 1 ml reaches over the edge of the image"),
    (("morph_moran", "morph_geary"),
     lambda image, levels, mask, mine: brute_force.autocorrelation(image, mask),
     "MIRP draws pairs of voxels at random where there are many"),
    (("rlm_",), lambda image, levels, mask, mine: brute_force.run_lengths(levels, mask),
     "few voxels: MIRP counts directions with the very same runs once"),
    (("cm_inv_var",), lambda image, levels, mask, mine: brute_force.inverse_variance(levels, mask),
     "MIRP leaves out directions in which all pairs are equal"),
)  # fmt: skip
"""Names of features, what brute force gives for (image, levels, mask, ours), why MIRP differs."""


def third_opinion(name, image, levels, mask, mine):
    """Return the value by brute force and why MIRP differs; (nan, "") if nobody can say."""
    for names, judge, why in OPINIONS:
        if name.startswith(names):
            return judge(image, levels, mask, mine).get(name, np.nan), why
    return np.nan, ""


class Identity:
    """Integers that are levels already."""

    words = "as they are"

    def levels(self, values):
        return values.astype(np.int32)

    def volume_histogram(self, values):
        return BinNumber(count=1000).volume_histogram(values)


def cases(rng, number):
    """Yield (what, image, mask, is it a dose), `number` of each kind."""
    for _ in range(number):
        shape = tuple(int(n) for n in rng.integers(4, 13, 3))
        image = rng.integers(1, int(rng.integers(3, 40)), shape).astype(float)
        yield "random", image, rng.random(shape) < rng.uniform(0.2, 1), False
        yield "solid", image, np.ones(shape, bool), False
        tiny = np.zeros(shape, bool)
        tiny[1:3, 1:3, 1 : 1 + int(rng.integers(1, 3))] = True
        yield "tiny", image, tiny, False
        apart = np.zeros(shape, bool)
        apart[:1, :2, :2] = apart[-2:, -1:, -2:] = True
        yield "disconnected", image, apart, False
        yield "one level", np.full(shape, 3.0), rng.random(shape) < 0.7, False
        one = np.zeros(shape, bool)
        one[tuple(n // 2 for n in shape)] = True
        yield "one voxel", image, one, False
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 14),) * 3, indexing="ij"))
        center, width = rng.uniform(-0.3, 0.3, (3, 1, 1, 1)), rng.uniform(0.4, 1.5)
        dose = 60 * np.exp(-np.sum((grid - center) ** 2, axis=0) / width**2)
        dose += rng.normal(0, 0.5, dose.shape).clip(-1, 1) + 1.5
        radii = rng.uniform(0.4, 0.95, (3, 1, 1, 1))
        yield "dose", dose, np.sum((grid / radii) ** 2, axis=0) < 1, True


def ours(image, mask, *, dose):
    """Return {tag of the reference table + aggregation: value}."""
    levels = BinSize(width=1.0) if dose else Identity()
    method = Method(families=FAMILIES, levels=levels, volume_histogram=BinNumber(count=1000))
    found = features(image, mask, mask, (1.0, 1.0, 1.0), method)
    values = {}
    for tag, code, how, _, _ in VALUES:
        value = (found.averaged if how == "averaged" else found.merged).get(code)
        if value is not None:
            plain = tag.removesuffix("_avg").removesuffix("_comb").removesuffix("_3D")
            values[plain + SUFFIX.get((tag.split("_")[0], how), "")] = value
    return values


def theirs(image, mask, *, dose):
    """Return the values of MIRP by its names."""
    from mirp import extract_features  # noqa: PLC0415 - only its own environment has it

    settings = {"base_discretisation_method": "none"}
    if dose:
        settings = {
            "base_discretisation_method": "fixed_bin_size",
            "base_discretisation_bin_width": 1.0,
            "resegmentation_intensity_range": [0.0, 1000.0],
        }
    (table,) = extract_features(
        image=image,
        mask=mask.astype(int),
        base_feature_families="all",
        glcm_spatial_method=["3d_average", "3d_volume_merge"],
        glrlm_spatial_method=["3d_average", "3d_volume_merge"],
        glszm_spatial_method="3d",
        gldzm_spatial_method="3d",
        ngtdm_spatial_method="3d",
        ngldm_spatial_method="3d",
        ivh_discretisation_method="fixed_bin_number",
        ivh_discretisation_n_bins=1000,
        **settings,
    )
    row = table.iloc[0]
    return {name.removesuffix("_fbs_w1.0"): row[name] for name in table.columns}


def difference(mine, other):
    """Return the relative difference; absolute for values near zero."""
    return abs(mine - other) / max(abs(mine), abs(other), 1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=5, help="arrays of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    compared, worst, wrong = defaultdict(int), defaultdict(float), []
    excused = defaultdict(lambda: defaultdict(int))
    for what, image, mask, dose in cases(np.random.default_rng(chosen.seed), chosen.number):
        mine, other = ours(image, mask, dose=dose), theirs(image, mask, dose=dose)
        levels = np.floor(image).astype(int) + 1 if dose else image.astype(int)
        for name, value in mine.items():
            if name not in other or other[name] is None or not np.isfinite(float(other[name])):
                continue
            gap = difference(value, float(other[name]))
            family = name.split("_")[0]
            limit = SINGLE if name.startswith(MESH) else TOLERANCE
            if gap > limit:
                truth, why = third_opinion(name, image, levels, mask, mine)
                if difference(value, truth) < TOLERANCE:
                    excused[why][name] += 1
                    continue
            compared[what] += 1
            worst[family] = max(worst[family], gap)
            if gap > limit:
                wrong.append((what, name, value, float(other[name]), gap))
    for what, count in compared.items():
        bad = sum(1 for item in wrong if item[0] == what)
        print(f"{what:14s} {count:6d} values, {bad} beyond {TOLERANCE:g}")
    for family, gap in worst.items():
        print(f"{family:14s} largest relative difference {gap:.2e}")
    for why, names in excused.items():
        told = ", ".join(f"{name} ({count})" for name, count in sorted(names.items()))
        print(f"MIRP differs and brute force is ours, {why}: {told}")
    for what, name, value, other, gap in wrong[:60]:
        print(f"DIFFERS {what}: {name} ours {value!r} theirs {other!r} ({gap:.1e})")
    print(f"{sum(compared.values())} values in {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
