"""A MONAI bundle: configs/metadata.json, configs/inference.json and models/model.pt or model.ts.

A bundle's configuration is a program; none of it is run here. Of the expressions only references
to plain values (``@pixdim``) are followed. The network must be one that the node rebuilds, and the
preprocessing must be: turn (Orientationd), resample (Spacingd), scale HU (ScaleIntensityRanged).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from models.foreign.monai_networks import SegResNetShape, UNetShape
from models.foreign.nnunet import read_json
from models.foreign.source import ForeignRefused, Source, toward
from models.window import Frame, Scaling

HARMLESS: Final = frozenset(
    {"LoadImaged", "EnsureChannelFirstd", "AddChanneld", "EnsureTyped", "ToTensord", "CastToTyped",
     "CropForegroundd", "SelectItemsd"}
)  # fmt: skip
"""Steps that change no value that a network sees inside the body."""
WEIGHTS: Final = ("models/model.pt", "models/model.ts")
IGNORED: Final = frozenset(
    {"_target_", "dropout", "dropout_prob", "dimensions", "act", "norm", "norm_name", "num_groups",
     "use_conv_final", "adn_ordering", "_mode_", "_disabled_", "_requires_", "_desc_"}
)  # fmt: skip
"""Arguments that mean nothing without training, or are read apart."""


def is_bundle(folder: Path) -> bool:
    """Return whether a folder looks like a MONAI bundle."""
    return (folder / "configs" / "metadata.json").is_file()


def read_bundle(folder: Path, *, orientation: str = "") -> Source:
    """Return what a bundle says.

    Parameters
    ----------
    folder
        With configs/metadata.json, configs/inference.json and models/.
    orientation
        Where the preprocessing does not turn images: how they lay in training.

    Raises
    ------
    ForeignRefused
        Where the node cannot run it.
    """
    about = read_json(folder / "configs/metadata.json")
    config = read_json(folder / "configs/inference.json")
    weights = next((folder / w for w in WEIGHTS if (folder / w).is_file()), None)
    if weights is None:
        raise ForeignRefused(f"the bundle has neither {' nor '.join(WEIGHTS)}")
    try:
        labels = _labels(about)
        shape = _shape(_resolved(config["network_def"], config), classes=len(labels) + 1)
        frame = _frame(config, orientation, shape)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        words = f"{error.args[0]} is missing" if isinstance(error, KeyError) else "not understood"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            words = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ForeignRefused(f"the bundle's configuration: {words}") from error
    return Source(
        kind="MONAI bundle",
        name=str(about.get("name") or about.get("task") or folder.name),
        shape=shape,
        frame=frame,
        checkpoints=(weights,),
        labels=labels,
        licence=str(about.get("license") or about.get("licence") or ""),
        intended_use=str(about.get("intended_use") or ""),
        origin={"version": str(about.get("version", "")), "monai": str(about.get("monai_version"))},
    )


def _labels(about: Mapping[str, Any]) -> dict[int, str]:
    formats = about["network_data_format"]
    image = formats["inputs"]["image"]
    if str(image.get("modality", "CT")).upper() != "CT" or int(image["num_channels"]) != 1:
        raise ForeignRefused("metadata.json: the network does not take one CT image")
    named = {int(k): str(v) for k, v in formats["outputs"]["pred"]["channel_def"].items()}
    if sorted(named) != list(range(len(named))) or named.pop(0, "").lower() not in (
        "background", "other", "everything else",
    ):  # fmt: skip
        raise ForeignRefused("metadata.json: channel 0 must be the background, then 1, 2, ...")
    return named


def _shape(told: Mapping[str, Any], classes: int) -> UNetShape | SegResNetShape:
    family = str(told.get("_target_", "")).rpartition(".")[2]
    values = {key: value for key, value in told.items() if key not in IGNORED}
    for key, usual in (("adn_ordering", "NDA"), ("use_conv_final", True)):
        if told.get(key, usual) != usual:
            raise ForeignRefused(f"network_def: {key} = {told[key]} is not supported")
    if family == "UNet":
        act, norm = _name(told.get("act", "PRELU")), _name(told.get("norm", "INSTANCE"))
        shape: UNetShape | SegResNetShape = UNetShape.model_validate(
            {**values, "act": act, "norm": norm}
        )
    elif family == "SegResNet":
        if _name(told.get("act", "RELU")) != "RELU" or _name(told.get("norm", "GROUP")) != "GROUP":
            raise ForeignRefused("network_def: SegResNet with another act or norm")
        shape = SegResNetShape.model_validate({**values, "num_groups": _groups(told)})
    else:
        raise ForeignRefused(
            f"{family or 'a network'} is not one that can be imported: UNet, SegResNet"
        )
    if shape.out_channels != classes:
        raise ForeignRefused(
            f"the network has {shape.out_channels} classes, metadata.json names {classes}"
        )
    return shape


def _name(option: object) -> str:
    """Return the name of an option that may come with arguments: ``["group", {...}]``."""
    return str(option[0] if isinstance(option, (list, tuple)) else option).upper()


def _groups(told: Mapping[str, Any]) -> int:
    norm = told.get("norm")
    if isinstance(norm, list) and len(norm) > 1:
        return int(norm[1].get("num_groups", 8))
    return int(told.get("num_groups", 8))


def _frame(config: Mapping[str, Any], orientation: str, shape: UNetShape | SegResNetShape) -> Frame:
    if shape.spatial_dims != 3:  # noqa: PLR2004 (a volume)
        raise ForeignRefused("only networks of volumes are imported from bundles")
    letters, pixdim, scaling = orientation, None, None
    for step in _steps(config):
        name = str(step.get("_target_", "")).rpartition(".")[2]
        if name == "Orientationd":
            letters = str(step["axcodes"])
        elif name == "Spacingd":
            pixdim = [float(v) for v in step["pixdim"]]
        elif name == "ScaleIntensityRanged":
            scaling = _scaling(step)
        elif name not in HARMLESS:
            raise ForeignRefused(f"the preprocessing has a step that is not rebuilt: {name}")
    if pixdim is None or scaling is None:
        raise ForeignRefused(
            "the preprocessing states no voxel size (Spacingd) or no scaling of HU"
        )
    return Frame.model_validate(
        {
            "dimensions": 3,
            "voxel_mm": pixdim,
            "patch": [int(v) for v in _resolved(config["inferer"], config)["roi_size"]],
            "field": None,
            "axes": toward(letters),
            "scaling": scaling.model_dump(),
        }
    )


def _scaling(step: Mapping[str, Any]) -> Scaling:
    low, high = float(step["a_min"]), float(step["a_max"])
    bottom, top = float(step["b_min"]), float(step["b_max"])
    if not step.get("clip"):
        raise ForeignRefused("ScaleIntensityRanged without clip")
    divide = (high - low) / (top - bottom)
    return Scaling(clip_hu=(low, high), subtract=low - bottom * divide, divide=divide)


def _steps(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for step in config["preprocessing"]["transforms"]:
        yield _resolved(step, config)


def _resolved(value: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of the configuration with references to plain values followed."""
    found = {}
    for key, item in value.items():
        seen = item
        if isinstance(item, str) and item.startswith("@"):
            seen = config
            for part in item[1:].replace("::", "#").split("#"):
                seen = seen[part]
        if isinstance(seen, str) and seen.startswith("$") and key not in ("keys", "_disabled_"):
            raise ForeignRefused(f"{key} is an expression ({seen[:60]}): write its value instead")
        found[key] = seen
    return found
