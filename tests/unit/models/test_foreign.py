"""Foreign models become packs that answer as they did, and can do nothing else on the way."""

import itertools
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML

from demo import dicom
from demo.elements import Case
from demo.grid import Grid
from models.engine import OnnxNetwork, load_members
from models.foreign.convert import convert
from models.foreign.importing import Bounds, describe, import_model
from models.foreign.nnunet_networks import NnUNet
from models.foreign.order import Order
from models.foreign.source import ForeignRefused, toward
from models.foreign.weights import WeightsRefused
from models.install import install_pack
from models.organs import answer, slide
from models.pack import load_pack
from models.window import Frame
from node.cli.models import models
from node.worker import process_folder
from pipelines.autocontour import learned
from tests.foreign_kit import bundle_folder, nnunet_folder, nnunet_shape, randomize

KNOWN = ("Kidney_L", "Liver", "Spleen", "Heart")
BOUNDS = Bounds(memory_gb=16, seconds=120)


def label_map(folder: Path, **changes: object) -> Path:
    """Write the label map of the small nnU-Net."""
    told = {
        "id": "tiny", "title": "Tiny", "body_region": "any", "orientation": "RAS",
        "licence": "CC0-1.0", "intended_use": "test", "reviewed_by": "nobody",
        "labels": {"kidney_left": "Kidney_L", "liver": {"name": "Liver", "volume_ml": [1, 9]}},
    } | changes  # fmt: skip
    path = folder / "labels.yaml"
    path.write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    return path


def spleen_map(folder: Path) -> Path:
    return label_map(folder, intended_use=None, orientation=None, labels={"spleen": "Spleen"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the pack of a plain network, and the folder it came from."""
    folder = tmp_path_factory.mktemp("tiny")
    model = nnunet_folder(folder / "model")
    return import_model(model, label_map(folder), folder / "pack", KNOWN, bounds=BOUNDS), model


def test_an_nnunet_folder_becomes_a_pack_that_answers_as_its_network(tiny):
    pack, _ = tiny

    manifest = load_pack(pack.folder).manifest
    assert [(o.index, o.name, o.volume_ml) for o in manifest.outputs] == [
        (1, "Kidney_L", None), (2, "Liver", (1.0, 9.0))]  # fmt: skip
    assert manifest.frame.axes == ("H", "A", "R")
    assert manifest.frame.patch == (16, 32, 32)
    assert manifest.frame.voxel_mm == (4.0, 3.0, 3.0)
    assert manifest.weights_licence == "CC0-1.0"
    (network,) = load_members(pack, threads=1)
    assert _apart(network, "PlainConvUNet") < 1e-3
    assert sorted(p.name for p in pack.folder.rglob("*") if p.is_file()) == [
        "CARD.md", "expected.npz", "input.npz", "model.json", "weights.onnx",
        "weights.safetensors"]  # fmt: skip


def _apart(network, family, seed=0):
    """Return the largest difference between a network of a pack and the one in torch."""
    net = NnUNet(nnunet_shape(family, 3)).eval()
    randomize(net, seed)
    batch = np.random.default_rng(0).normal(size=(1, 1, 16, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(batch)).numpy()
    return np.abs(network(batch) - expected).max()


def converted(source, out):
    """Convert in this process, without walls: our own files."""
    out.mkdir()
    return convert(
        Order(shape=source.shape, checkpoints=[str(p) for p in source.checkpoints],
              test_size=[2 * f for f in source.shape.factors], out=str(out), trust=False,
              memory_gb=1, cpu_s=1)
    )  # fmt: skip


def test_a_residual_encoder_is_converted_too(tmp_path):
    folder = nnunet_folder(tmp_path / "model", family="ResidualEncoderUNet")

    answer = converted(describe(folder, "RAS"), tmp_path / "out")

    assert max(answer.differences) < 1e-3
    network = OnnxNetwork(tmp_path / "out/weights.onnx", 1)
    assert _apart(network, "ResidualEncoderUNet") < 1e-3


def test_plans_of_the_first_releases_name_the_same_network(tmp_path):
    new = describe(nnunet_folder(tmp_path / "new"), "RAS")
    old = describe(nnunet_folder(tmp_path / "old", old=True), "RAS")

    assert old.shape == new.shape
    assert old.frame == new.frame


def test_several_folds_are_several_members(tmp_path):
    folder = nnunet_folder(tmp_path / "model", folds=3)

    answer = converted(describe(folder, "RAS", folds=("0", "2")), tmp_path / "out")

    assert len(answer.differences) == 2
    for name, seed in (("weights.onnx", 0), ("weights-2.onnx", 2)):
        assert _apart(OnnxNetwork(tmp_path / "out" / name, 1), "PlainConvUNet", seed) < 1e-3
    with pytest.raises(ForeignRefused, match="fold 7 is not there; there are 0, 1, 2"):
        describe(folder, "RAS", folds=("7",))


@pytest.mark.parametrize("family", ["UNet", "SegResNet"])
def test_a_monai_bundle_is_converted(family, tmp_path):
    source = describe(bundle_folder(tmp_path / "bundle", family=family), "")

    answer = converted(source, tmp_path / "out")

    frame = source.frame
    assert max(answer.differences) < 1e-3
    assert frame.axes == ("R", "A", "H")
    assert frame.voxel_mm == (3.0, 3.0, 4.0)
    assert frame.patch == (32, 32, 16)
    assert frame.scaling(np.array([-100.0, -57.0, 164.0, 500.0], np.float32)).tolist() == (
        pytest.approx([0.0, 0.0, 1.0, 1.0])
    )
    assert source.labels == {1: "spleen"}


def test_the_command_makes_a_pack_of_a_bundle_with_torchscript(tmp_path):
    folder = bundle_folder(tmp_path / "bundle", script=True)

    result = CliRunner().invoke(
        models, ["import", str(folder), "--labels", str(spleen_map(tmp_path)),
                 "--out", str(tmp_path / "pack"), "--memory-gb", "16"]
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "wrote tiny 1" in result.output
    pack = load_pack(tmp_path / "pack")
    assert [o.name for o in pack.manifest.outputs] == ["Spleen"]
    assert pack.manifest.intended_use.startswith("This is an example")


def test_without_a_label_map_the_command_prints_one_to_fill_in(tmp_path):
    folder = nnunet_folder(tmp_path / "model")

    result = CliRunner().invoke(models, ["import", str(folder)])

    assert result.exit_code == 0
    told = YAML(typ="safe", pure=True).load(result.output)
    assert told["labels"] == {"kidney_left": "Kidney_L", "liver": "Liver"}
    assert told["orientation"] == told["licence"] == told["reviewed_by"] == ""


def test_the_command_says_what_is_missing(tmp_path):
    folder = nnunet_folder(tmp_path / "model")

    result = CliRunner().invoke(
        models, ["import", str(folder), "--labels", str(label_map(tmp_path, licence=None)),
                 "--out", str(tmp_path / "pack")]
    )  # fmt: skip

    assert result.exit_code == 1
    assert "refused: neither the folder nor labels.yaml states the licence" in result.output


def test_the_engine_runs_an_imported_network_as_its_own_windows_would(tiny):
    """Clipped to the percentiles, shifted by the mean, divided by the deviation."""
    pack, _ = tiny
    (network,) = load_members(pack, threads=1)
    hu = np.random.default_rng(1).uniform(-1200, 1500, (16, 32, 32)).astype(np.float32)

    answer = slide(hu, network, pack.manifest.frame)

    seen = (np.clip(hu, -900, 1200) - 60) / 240
    logits = network(seen[None, None])[0]
    expected = np.exp(logits - logits.max(axis=0)) / np.exp(logits - logits.max(axis=0)).sum(axis=0)
    assert answer.shape == (16, 3, 32, 32)
    assert np.abs(answer - np.moveaxis(expected, 0, 1)).max() < 1e-4


@pytest.mark.parametrize(
    ("scheme", "window"),
    [
        ("ZScoreNormalization", lambda v: (v.mean(), v.std())),
        ("RescaleTo01Normalization", lambda v: (v.min(), np.ptp(v))),
        ("NoNormalization", lambda _: (0.0, 1.0)),
    ],
)
def test_a_network_whose_window_each_image_sets_sees_what_nnunet_shows_it(scheme, window, tmp_path):
    """The values of the whole CT count, not those of the part around the body."""
    folder = nnunet_folder(tmp_path / "model")
    _changed(folder / "plans.json", *SETUP, "normalization_schemes", to=[scheme])
    frame = Frame.model_validate_json(describe(folder, "RAS").frame.model_dump_json())
    rng = np.random.default_rng(2)
    whole = rng.normal(-600, 400, (20, 40, 40)).astype(np.float32)
    body = whole[:, 4:36, 4:36]
    seen = []

    def network(batch):
        seen.append(batch)
        return np.zeros((1, 3, *batch.shape[2:]), np.float32)

    answer(body, frame.voxel_mm, [network], [frame], whole)

    subtract, divide = window(whole.astype(np.float64))
    least = (body.min() - subtract) / divide
    assert np.isclose(min(s.min() for s in seen), least, rtol=1e-4)


def test_a_mask_for_the_window_of_an_image_is_refused_by_name(tmp_path):
    folder = nnunet_folder(tmp_path / "model")
    _changed(folder / "plans.json", *SETUP, "normalization_schemes", to=["ZScoreNormalization"])
    _changed(folder / "plans.json", *SETUP, "use_mask_for_norm", to=[True])

    with pytest.raises(ForeignRefused, match="use_mask_for_norm"):
        describe(folder, "RAS")


def test_a_route_runs_an_imported_pack_by_its_name(tiny, tmp_path, monkeypatch):
    """From DICOM to the RT Structure Set: the file names the pack, which may find any organ."""
    pack, _ = tiny
    monkeypatch.setattr(learned, "PACKS", tmp_path / "packs")
    install_pack(pack.folder, tmp_path / "packs")
    hu = np.full((20, 48, 64), -1000.0, np.float32)
    hu[:, 8:40, 10:54] = 30
    grid = Grid(shape=hu.shape, spacing=(4.0, 4.0, 4.0), origin=(-120, -90, 0))
    dicom.save(dicom.ct_series(Case(seed=3), hu, grid), tmp_path / "ct")

    code = process_folder(
        "autocontour", tmp_path / "ct", tmp_path / "out",
        {"model_pack": "tiny", "work_grid_mm": "4", "structures": '["External"]'},
    )  # fmt: skip

    assert code == 0
    written = pydicom.dcmread(tmp_path / "out/rtstruct.dcm")
    assert written.SeriesDescription == "AUTO classical + tiny 1 UNAPPROVED"
    told = json.loads((tmp_path / "out/report/report.json").read_text())
    names = {*told["figures"]["rois"], *(f["roi"] for f in told["findings"])}
    assert {"External", "Kidney_L", "Liver"} <= {str(n).replace("~", "") for n in names}


def test_a_volume_smaller_than_a_window_is_padded_with_the_networks_zero(tmp_path):
    frame = describe(nnunet_folder(tmp_path / "model"), "RAS").frame
    seen = []

    def network(batch):
        seen.append(batch)
        return np.zeros((1, 3, *batch.shape[2:]), np.float32)

    answer = slide(np.full((6, 20, 32), 300.0, np.float32), network, frame)

    assert answer.shape == (6, 3, 20, 32)
    assert (seen[0][0, 0, :5] == 0).all()
    assert (seen[0][0, 0, 5:11, 6:26] == 1).all()
    assert (seen[0][0, 0, :, 26:] == 0).all()


class Runs:
    """Unpickles as a call, as a hostile checkpoint would."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        function, *arguments = self.call
        return function, tuple(arguments)


def test_a_checkpoint_that_holds_a_program_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "mark"
    folder = nnunet_folder(tmp_path / "model", extra=Runs(os.mkdir, str(mark)))

    with pytest.raises(ForeignRefused, match=r"more than numbers \(.*mkdir.*--trust"):
        import_model(folder, label_map(tmp_path), tmp_path / "pack", KNOWN, bounds=BOUNDS)

    assert not mark.exists()
    assert not (tmp_path / "pack").exists()


DEEDS = """
import os, socket, subprocess
def connects(): socket.create_connection({address})
def writes(): os.mkdir({mark!r})
def starts(): subprocess.run(["true"])
def forks(): os.fork() or os._exit(0)
def kills(): os.kill({bystander}, 9)
done = []
for deed in (connects, writes, starts, forks, kills):
    try:
        deed()
        done.append(deed.__name__)
    except OSError:
        pass
if done:
    raise RuntimeError(done)
"""


def test_a_trusted_program_still_cannot_leave_its_folder(tmp_path):
    """With --trust the checkpoint is opened, behind walls that the kernel keeps."""
    mark = tmp_path / "mark"
    bystander = subprocess.Popen(["sleep", "60"])
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    program = DEEDS.format(address=listener.getsockname(), mark=str(mark), bystander=bystander.pid)
    folder = nnunet_folder(tmp_path / "model", extra=Runs(exec, program, {}))
    try:
        import_model(folder, label_map(tmp_path), tmp_path / "pack", KNOWN, trust=True,
                     bounds=BOUNDS)  # fmt: skip

        assert not mark.exists()
        assert bystander.poll() is None
        with pytest.raises(TimeoutError):
            listener.accept()
    finally:
        bystander.kill()
        bystander.wait(10)
        listener.close()


def test_a_converter_that_takes_too_long_is_ended(tmp_path):
    folder = nnunet_folder(tmp_path / "model", extra=Runs(time.sleep, 60))
    begun = time.monotonic()

    with pytest.raises(ForeignRefused, match="not converted within 8 s"):
        import_model(folder, label_map(tmp_path), tmp_path / "pack", KNOWN, trust=True,
                     bounds=Bounds(memory_gb=16, seconds=8))  # fmt: skip

    assert time.monotonic() - begun < 30
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".importing")] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"licence": None}, "states the licence"),
        ({"intended_use": None}, "states the intended_use"),
        ({"orientation": None}, "does not say how its images lay"),
        ({"orientation": "RAP"}, "three letters say"),
        ({"reviewed_by": ""}, "reviewed_by"),
        ({"labels": {"liver": "Liver"}}, "'kidney_left' is missing"),
        ({"labels": {"liver": "Liver", "kidney_left": "Liver"}}, "Liver is given twice"),
        ({"labels": {"liver": "Leber", "kidney_left": None}}, "Leber is not a learned structure"),
        ({"labels": {"liver": "Liver", "kidney_left": None, "x": "Heart"}}, "has no 'x'"),
    ],
    ids=["licence", "use", "orientation", "letters", "review", "missing", "twice", "name", "extra"],
)
def test_what_a_person_must_say_is_asked_for(changes, words, tmp_path):
    folder = nnunet_folder(tmp_path / "model")

    with pytest.raises(ForeignRefused, match=words):
        import_model(folder, label_map(tmp_path, **changes), tmp_path / "pack", KNOWN,
                     bounds=BOUNDS)  # fmt: skip


def _changed(path: Path, *keys: str, to: object) -> None:
    told = json.loads(path.read_text())
    part = told
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = to
    path.write_text(json.dumps(told))


SETUP = ("configurations", "3d_fullres")


@pytest.mark.parametrize(
    ("keys", "to", "words"),
    [
        (
            (*SETUP, "normalization_schemes"),
            ["RGBTo01Normalization"],
            "RGBTo01Normalization; one of",
        ),
        ((*SETUP, "previous_stage"), "3d_lowres", "second stage of a cascade"),
        ((*SETUP, "architecture", "network_class_name"), "a.b.Primus", "Primus is no network"),
        ((*SETUP, "architecture", "arch_kwargs", "strides"), "x", "3d_fullres: "),
        ((*SETUP, "patch_size"), None, "3d_fullres: "),
        (("configurations",), {}, "no configuration that the node can run"),
    ],
    ids=["scheme", "cascade", "network", "strides", "patch", "none"],
)
def test_plans_that_the_node_cannot_run_are_refused_by_name(keys, to, words, tmp_path):
    folder = nnunet_folder(tmp_path / "model")
    _changed(folder / "plans.json", *keys, to=to)

    with pytest.raises(ForeignRefused, match=words):
        describe(folder, "RAS")


@pytest.mark.parametrize(
    ("keys", "to", "words"),
    [
        (("labels",), {"background": 0, "all": [1, 2], "part": 2}, "regions"),
        (("channel_names",), {"0": "T1"}, "not CT"),
        (("labels",), {"background": 0, "liver": 2}, "then 1, 2"),
    ],
    ids=["regions", "mr", "gap"],
)
def test_data_sets_that_the_node_cannot_run_are_refused_by_name(keys, to, words, tmp_path):
    folder = nnunet_folder(tmp_path / "model")
    _changed(folder / "dataset.json", *keys, to=to)

    with pytest.raises(ForeignRefused, match=words):
        describe(folder, "RAS")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"_target_": "NormalizeIntensityd", "nonzero": True}, "NormalizeIntensityd"),
        ({"_target_": "Spacingd", "pixdim": "$[1] * 3"}, "is an expression"),
        ({"_target_": "$__import__('os')"}, "is an expression"),
    ],
    ids=["normalization", "expression", "program"],
)
def test_a_bundle_whose_preprocessing_is_not_rebuilt_is_refused(step, words, tmp_path):
    folder = bundle_folder(tmp_path / "bundle")
    path = folder / "configs/inference.json"
    told = json.loads(path.read_text())
    told["preprocessing"]["transforms"].append(step)
    path.write_text(json.dumps(told))

    with pytest.raises(ForeignRefused, match=words):
        describe(folder, "")


def test_weights_that_do_not_fit_the_plans_are_refused(tmp_path):
    folder = nnunet_folder(tmp_path / "model")
    _changed(folder / "plans.json", *SETUP, "architecture", "arch_kwargs", "features_per_stage",
             to=[4, 8, 16])  # fmt: skip

    with pytest.raises(WeightsRefused, match="does not fit its plans"):
        converted(describe(folder, "RAS"), tmp_path / "out")


def test_every_orientation_names_three_axes():
    letters = ["".join(p) for p in itertools.product("RLAPSI", repeat=3)]
    good = [word for word in letters if len({"RLAPSI".index(c) // 2 for c in word}) == 3]

    assert len(good) == 48
    assert toward("LPS") == ("L", "P", "H")
    for word in set(letters) - set(good):
        with pytest.raises(ForeignRefused):
            toward(word)
