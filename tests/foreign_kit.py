"""Small foreign models in the exact layout of their tools: nnU-Net v2 folders, MONAI bundles.

Weights are random but from a seed. The checkpoint dictionary is the one that nnU-Net v2 writes,
with the parameters that its modules hold twice.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.foreign.monai_networks import MonaiUNet, SegResNet, SegResNetShape, UNetShape
from models.foreign.nnunet_networks import NnUNet, NnUNetShape

PATCH = (16, 32, 32)
SHAPE = {
    "features": (4, 8, 8), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "blocks": (1, 2, 1), "decoder": (1, 1),
}  # fmt: skip


def architecture(family: str) -> dict[str, Any]:
    """Return the `architecture` of a configuration, as nnU-Net 2.3 and later write it."""
    blocks = "n_conv_per_stage" if family == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{family}",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": SHAPE["features"],
            "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": SHAPE["kernels"],
            "strides": SHAPE["strides"], blocks: SHAPE["blocks"],
            "n_conv_per_stage_decoder": SHAPE["decoder"], "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None,
            "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip


OLD_STYLE = {
    "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 8,
    "n_conv_per_stage_encoder": SHAPE["blocks"], "n_conv_per_stage_decoder": SHAPE["decoder"],
    "pool_op_kernel_sizes": SHAPE["strides"], "conv_kernel_sizes": SHAPE["kernels"],
    "num_pool_per_axis": [1, 2, 2],
}  # fmt: skip
"""A network as the plans of the first releases (and TotalSegmentator's weights) name it."""


def nnunet_plans(network: dict[str, Any]) -> dict[str, Any]:
    """Return plans.json."""
    return {
        "dataset_name": "Dataset901_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres", "batch_size": 2, "patch_size": PATCH,
                "spacing": [4.0, 3.0, 3.0], "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False], "batch_dice": True, **network,
            }
        },
        "foreground_intensity_properties_per_channel": {
            "0": {"max": 3000.0, "mean": 60.0, "median": 50.0, "min": -1000.0,
                  "percentile_00_5": -900.0, "percentile_99_5": 1200.0, "std": 240.0}
        },
    }  # fmt: skip


def nnunet_shape(family: str, classes: int) -> NnUNetShape:
    """Return the shape of the network in the plans."""
    return NnUNetShape(family=family, dimensions=3, classes=classes, **SHAPE)


def nnunet_folder(
    folder: Path, *, family: str = "PlainConvUNet", old: bool = False, folds: int = 1,
    labels: dict[str, int] | None = None, extra: object = None,
) -> Path:  # fmt: skip
    """Write a trained nnU-Net v2 folder; `extra` goes into the checkpoint beside the weights."""
    labels = labels or {"background": 0, "kidney_left": 1, "liver": 2}
    plans = nnunet_plans(OLD_STYLE if old else {"architecture": architecture(family)})
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 3,
               "file_ending": ".nii.gz"}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in range(folds):
        net = NnUNet(nnunet_shape(family, len(labels)))
        randomize(net, fold)
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": twice(net.state_dict()),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.4)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": fold,
                          "dataset_json": dataset, "unpack_dataset": True,
                          "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }  # fmt: skip
        if extra is not None:
            checkpoint["extra"] = extra
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def randomize(net: torch.nn.Module, seed: int) -> None:
    """Give a network weights that make all classes occur."""
    torch.manual_seed(seed)
    for value in net.parameters():
        torch.nn.init.normal_(value, 0.0, 0.3)


def twice(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights with the names under which nnU-Net's modules hold them a second time."""
    found = dict(weights)
    for name, value in weights.items():
        for part, place in ((".conv.", ".all_modules.0."), (".norm.", ".all_modules.1.")):
            if part in name:
                found[name.replace(part, place)] = value
    found |= {f"decoder.{name}": v for name, v in found.items() if name.startswith("encoder.")}
    return found


def bundle_folder(folder: Path, *, family: str = "UNet", script: bool = False) -> Path:
    """Write a MONAI bundle of one organ, the spleen."""
    if family == "UNet":
        shape: Any = UNetShape(spatial_dims=3, out_channels=2, channels=(4, 8, 8), strides=(2, 2),
                               num_res_units=2, norm="BATCH")  # fmt: skip
        network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                   "channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 2,
                   "norm": "batch"}  # fmt: skip
        net: torch.nn.Module = MonaiUNet(shape)
    else:
        shape = SegResNetShape(out_channels=2, blocks_down=(1, 1, 1), blocks_up=(1, 1))
        network = {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                   "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1],
                   "dropout_prob": 0.2}  # fmt: skip
        net = SegResNet(shape)
    randomize(net, 3)
    net.eval()
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    about = {
        "version": "0.5.3", "monai_version": "1.4.0", "task": "Decathlon spleen segmentation",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1,
                                 "spatial_shape": [96, 96, 96], "value_range": [0, 1]}},
            "outputs": {"pred": {"num_channels": 2,
                                 "channel_def": {"0": "background", "1": "spleen"}}},
        },
    }  # fmt: skip
    config = {
        "imports": ["$import glob"],
        "pixdim": [3.0, 3.0, 4.0],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164,
             "b_min": 0, "b_max": 1, "clip": True},
            {"_target_": "EnsureTyped", "keys": "image"},
        ]},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "overlap": 0.5},
    }  # fmt: skip
    (folder / "configs/metadata.json").write_text(json.dumps(about))
    (folder / "configs/inference.json").write_text(json.dumps(config))
    if script:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # bundles are made so all the same
            traced = torch.jit.trace(net, torch.zeros(1, 1, 16, 16, 16))
            torch.jit.save(traced, str(folder / "models/model.ts"))
    else:
        torch.save(net.state_dict(), folder / "models/model.pt")
    return folder
