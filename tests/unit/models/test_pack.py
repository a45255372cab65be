"""A pack runs only when every byte is what its manifest says."""

import json
import shutil

import numpy as np
import pytest
from pydantic import ValidationError

from models.engine import load_network
from models.pack import PACKS, Manifest, PackRefused, load_pack

NAME = "headneck-openkbp"


@pytest.fixture
def pack(tmp_path):
    return shutil.copytree(PACKS / NAME, tmp_path / NAME)


def test_the_shipped_pack_loads_and_passes_its_self_test():
    loaded = load_pack(PACKS / NAME)

    load_network(loaded, threads=1)

    assert [o.name for o in loaded.manifest.outputs][:2] == ["Brainstem", "SpinalCord"]
    assert loaded.manifest.metrics.keys() == {o.name for o in loaded.manifest.outputs}


def test_a_changed_weight_is_refused(pack):
    weights = pack / "weights.onnx"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)

    with pytest.raises(PackRefused, match=r"weights\.onnx differs"):
        load_pack(pack)


def test_a_missing_file_is_refused(pack):
    (pack / "CARD.md").unlink()

    with pytest.raises(PackRefused, match=r"CARD\.md is missing"):
        load_pack(pack)


def test_a_manifest_cannot_reach_outside_its_folder(pack):
    manifest = json.loads((pack / "model.json").read_text())
    manifest["files"][0]["path"] = "../outside"
    (pack.parent / "outside").write_text("x")
    (pack / "model.json").write_text(json.dumps(manifest))

    with pytest.raises(PackRefused, match="is missing"):
        load_pack(pack)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(PackRefused, match="no model pack"):
        load_pack(tmp_path)


def test_an_invalid_manifest_is_refused(pack):
    (pack / "model.json").write_text('{"schema_version": 2}')

    with pytest.raises(PackRefused, match="invalid entries"):
        load_pack(pack)


def test_a_network_that_answers_differently_is_refused(pack, monkeypatch):
    loaded = load_pack(pack)
    with np.load(pack / "test" / "expected.npz") as expected:
        other = {name: np.zeros_like(logits) for name, logits in expected.items()}
    np.savez(pack / "test" / "expected.npz", **other)

    with pytest.raises(PackRefused, match="self-test"):
        load_network(loaded, threads=1)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"field": (80, 64), "patch": (1, 80, 64)}, True),
        ({"voxel_mm": (2.5, 3.25, 3.25)}, False),
        ({"field": (80, 63)}, False),
        ({"axes": ("H", "A", "L")}, False),
    ],
)
def test_networks_are_averaged_only_where_their_voxels_coincide(change, fits):
    frame = {"dimensions": 2, "voxel_mm": (2.5, 3.9, 3.9), "patch": (1, 80, 80),
             "field": (80, 80), "offsets": (-1, 0, 1)}  # fmt: skip
    told = load_pack(PACKS / NAME).manifest.model_dump()
    told |= {"members": 2, "frame": frame, "other_frames": [frame | change]}

    if fits:
        assert Manifest.model_validate(told).frames[1].field == (80, 64)
    else:
        with pytest.raises(ValidationError, match="same voxels"):
            Manifest.model_validate(told)


def test_a_manifest_names_the_frame_of_every_member_or_of_none():
    told = load_pack(PACKS / NAME).manifest.model_dump()

    with pytest.raises(ValidationError, match="other_frames"):
        Manifest.model_validate(told | {"members": 3, "other_frames": [told["frame"]]})

    assert len(Manifest.model_validate(told | {"members": 3, "other_frames": []}).frames) == 3
