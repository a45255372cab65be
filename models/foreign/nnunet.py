"""A trained nnU-Net v2 folder: plans.json, dataset.json and fold_*/checkpoint_final.pth.

Plans name the network, the voxels, the patch and how HU enter; the data set names the classes.
Neither says how the images lay: nnU-Net takes arrays as they come, so that must be told. What the
node cannot run (other modalities, cascades, regions that overlap) is refused by its name.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from models.foreign.nnunet_networks import SLOPE, NnUNetShape
from models.foreign.source import MAX_JSON_BYTES, ForeignRefused, Source, toward
from models.window import LEAST, Frame, ImageScaling, Scaling

CONFIGURATIONS: Final = ("3d_fullres", "3d_lowres", "2d")
"""Tried in this order where none is named."""
CHECKPOINT: Final = "checkpoint_final.pth"
CT: Final = "CTNormalization"
BY_IMAGE: Final[Mapping[str, ImageScaling]] = {
    "ZScoreNormalization": ImageScaling(by="deviation"),
    "RescaleTo01Normalization": ImageScaling(by="range"),
}
"""Schemes by which each image sets its own window."""
UNSCALED: Final = "NoNormalization"
ANY_HU: Final = (-1e6, 1e6)
"""No value of a CT lies outside."""
_FAMILIES: Final = ("PlainConvUNet", "ResidualEncoderUNet")


def is_nnunet(folder: Path) -> bool:
    """Return whether a folder looks like a trained nnU-Net v2."""
    return (folder / "plans.json").is_file() and (folder / "dataset.json").is_file()


def read_nnunet(
    folder: Path, *, orientation: str, configuration: str = "", folds: Sequence[str] = ()
) -> Source:
    """Return what a folder says.

    Parameters
    ----------
    folder
        With plans.json, dataset.json and at least one fold.
    orientation
        Toward which side of the patient columns, rows and slices of the training images grew.
    configuration
        ``3d_fullres`` and so on; default: what the folder's name ends with, else the first found.
    folds
        Their names, such as ``0`` or ``all``; default: the first.

    Raises
    ------
    ForeignRefused
        Where the node cannot run it.
    """
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    chosen = configuration or _configuration(folder, plans)
    setup = _settled(plans, chosen)
    labels = _labels(dataset)
    try:
        shape = _shape(setup, classes=len(labels) + 1)
        frame = _frame(plans, setup, orientation)
    except (KeyError, TypeError, ValidationError, ValueError) as error:
        raise ForeignRefused(f"plans.json, {chosen}: {_told(error)}") from error
    return Source(
        kind="nnU-Net v2",
        name=str(plans.get("dataset_name", folder.name)),
        shape=shape,
        frame=frame,
        checkpoints=_checkpoints(folder, folds),
        labels=labels,
        licence=str(dataset.get("licence") or dataset.get("license") or ""),
        origin={"configuration": chosen, "plans": str(plans.get("plans_name", ""))},
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    ForeignRefused
        Where there is none.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ForeignRefused(f"{path.name} is too large to be believed")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ForeignRefused(f"{path.name} cannot be read: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise ForeignRefused(f"{path.name} holds no object")
    return found


def _configuration(folder: Path, plans: Mapping[str, Any]) -> str:
    there = plans.get("configurations", {})
    named = folder.name.rpartition("__")[2]
    for name in (named, *CONFIGURATIONS):
        if name in there:
            return name
    raise ForeignRefused("plans.json names no configuration that the node can run")


def _settled(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits."""
    there = plans.get("configurations", {})
    if name not in there:
        raise ForeignRefused(f"plans.json has no configuration '{name}'")
    chain: list[Mapping[str, Any]] = []
    following: str | None = name
    while following is not None and len(chain) < 10:  # noqa: PLR2004 (no chain is that long)
        chain.insert(0, there.get(following, {}))
        following = chain[0].get("inherits_from")
    setup = {key: value for part in chain for key, value in part.items()}
    if setup.get("previous_stage"):
        raise ForeignRefused(f"{name} is the second stage of a cascade: import 3d_fullres")
    return setup


def _labels(dataset: Mapping[str, Any]) -> dict[int, str]:
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    if [str(c).upper() for c in channels.values()] != ["CT"]:
        raise ForeignRefused(f"dataset.json: the network takes {list(channels.values())}, not CT")
    labels: dict[int, str] = {}
    for name, value in dict(dataset.get("labels", {})).items():
        if not isinstance(value, int):
            raise ForeignRefused(f"dataset.json: '{name}' is made of several labels (regions)")
        labels[value] = str(name)
    if labels.pop(0, None) is None or sorted(labels) != list(range(1, len(labels) + 1)):
        raise ForeignRefused("dataset.json: labels must be 0 for the background, then 1, 2, ...")
    return labels


def _shape(setup: Mapping[str, Any], classes: int) -> NnUNetShape:
    if "architecture" in setup:
        family = str(setup["architecture"]["network_class_name"]).rpartition(".")[2]
        told = setup["architecture"]["arch_kwargs"]
        blocks = told.get("n_conv_per_stage", told.get("n_blocks_per_stage"))
        features = told["features_per_stage"]
        kernels, strides = told["kernel_sizes"], told["strides"]
        decoder = told["n_conv_per_stage_decoder"]
        _refuse_odd(told)
    else:  # plans of the first releases
        family, told = str(setup["UNet_class_name"]), {}
        blocks, decoder = setup["n_conv_per_stage_encoder"], setup["n_conv_per_stage_decoder"]
        kernels, strides = setup["conv_kernel_sizes"], setup["pool_op_kernel_sizes"]
        base, most = int(setup["UNet_base_num_features"]), int(setup["unet_max_num_features"])
        features = [min(base * 2**stage, most) for stage in range(len(strides))]
    if family not in _FAMILIES:
        raise ForeignRefused(f"{family} is no network that can be imported: {', '.join(_FAMILIES)}")
    norm = str(told.get("norm_op", "InstanceNorm"))
    return NnUNetShape.model_validate(
        {
            "family": family,
            "dimensions": len(strides[0]),
            "classes": classes,
            "features": features,
            "kernels": kernels,
            "strides": strides,
            "blocks": blocks,
            "decoder": decoder,
            "bias": bool(told.get("conv_bias", True)),
            "norm": "batch" if "BatchNorm" in norm else "instance",
            "epsilon": float((told.get("norm_op_kwargs") or {}).get("eps", 1e-5)),
            "slope": float((told.get("nonlin_kwargs") or {}).get("negative_slope", SLOPE)),
        }
    )


def _refuse_odd(told: Mapping[str, Any]) -> None:
    """Refuse options that change what is computed and that are not rebuilt."""
    odd = {
        "nonlin": "LeakyReLU" not in str(told.get("nonlin", "LeakyReLU")),
        "norm_op": not any(n in str(told.get("norm_op", "InstanceNorm"))
                           for n in ("InstanceNorm", "BatchNorm")),
        "nonlin_first": bool(told.get("nonlin_first")),
        "bottleneck_channels": bool(told.get("bottleneck_channels")),
        "stem_channels": bool(told.get("stem_channels")),
        "squeeze_excitation": bool(told.get("squeeze_excitation")),
    }  # fmt: skip
    for name, wrong in odd.items():
        if wrong:
            raise ForeignRefused(f"plans.json: {name} = {told.get(name)} is not supported")


def _frame(plans: Mapping[str, Any], setup: Mapping[str, Any], orientation: str) -> Frame:
    x, y, z = toward(orientation)
    order = [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))]
    axes = [(z, y, x)[axis] for axis in order]
    spacing = [float(step) for step in setup["spacing"]]
    patch = [int(size) for size in setup["patch_size"]]
    flat = len(patch) == 2  # noqa: PLR2004 (rows and columns)
    if flat:
        patch = [1, *patch]
        spacing = spacing if len(spacing) == 3 else [_between(plans), *spacing]  # noqa: PLR2004 (three axes)
    return Frame.model_validate(
        {
            "dimensions": 2 if flat else 3,
            "voxel_mm": spacing,
            "patch": patch,
            "offsets": (0,) if flat else (),
            "field": None,
            "axes": axes,
            "scaling": _scaling(plans, setup).model_dump(),
        }
    )


def _scaling(plans: Mapping[str, Any], setup: Mapping[str, Any]) -> Scaling | ImageScaling:
    """Return how HU enter the network."""
    (scheme, *more) = list(setup["normalization_schemes"]) or [""]
    if more or scheme not in {CT, UNSCALED, *BY_IMAGE}:
        raise ForeignRefused(
            f"plans.json: intensities enter by {', '.join([scheme, *more])}; "
            f"one of {', '.join([CT, *BY_IMAGE, UNSCALED])} can be run"
        )
    if scheme == UNSCALED:
        return Scaling(clip_hu=ANY_HU, subtract=0.0, divide=1.0)
    if scheme in BY_IMAGE:
        if any(setup.get("use_mask_for_norm") or ()):
            raise ForeignRefused(
                f"plans.json: {scheme} inside a mask (use_mask_for_norm) is not supported: "
                "a CT has no border of zeros"
            )
        return BY_IMAGE[scheme]
    seen = plans["foreground_intensity_properties_per_channel"]["0"]
    return Scaling(
        clip_hu=(float(seen["percentile_00_5"]), float(seen["percentile_99_5"])),
        subtract=float(seen["mean"]),
        divide=max(float(seen["std"]), LEAST),
    )


def _between(plans: Mapping[str, Any]) -> float:
    """Return the distance of slices in the training data, for a network of single slices."""
    return float(plans["original_median_spacing_after_transp"][0])


def _checkpoints(folder: Path, folds: Sequence[str]) -> tuple[Path, ...]:
    there = sorted(p.parent.name.removeprefix("fold_") for p in folder.glob(f"fold_*/{CHECKPOINT}"))
    if not there:
        raise ForeignRefused(f"there is no fold_*/{CHECKPOINT}")
    missing = [fold for fold in folds if fold not in there]
    if missing:
        raise ForeignRefused(f"fold {missing[0]} is not there; there are {', '.join(there)}")
    return tuple(folder / f"fold_{fold}" / CHECKPOINT for fold in folds or there[:1])


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return "not as nnU-Net writes it"
