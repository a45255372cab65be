"""Packs come in whole, under their own name, from folders and archives, or not at all."""

import shutil
import tarfile
import zipfile

import pytest

from models.install import install_pack, installed_packs
from models.pack import PACKS, PackManifest, PackRefused, SyntheticCtManifest, load_pack

NAME = "headneck-openkbp"


@pytest.fixture
def pack(tmp_path):
    return shutil.copytree(PACKS / NAME, tmp_path / "downloaded")


def _zip(pack, to):
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(p for p in pack.rglob("*") if p.is_file()):
            archive.write(path, f"somewhere/{path.relative_to(pack)}")
    return to


def _tar(pack, to):
    with tarfile.open(to, "w") as archive:
        archive.add(pack, "somewhere")
    return to


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_a_pack_is_installed_under_its_id(form, pack, tmp_path):
    (pack / "stray.txt").write_text("not in the manifest")
    made = {"folder": lambda: pack, "zip": lambda: _zip(pack, tmp_path / "p.zip"),
            "tar": lambda: _tar(pack, tmp_path / "p.tar")}  # fmt: skip

    installed = install_pack(made[form](), tmp_path / "packs")

    assert installed.folder == tmp_path / "packs" / NAME
    assert installed.sha256 == load_pack(PACKS / NAME).sha256
    assert not (installed.folder / "stray.txt").exists()
    assert installed_packs(tmp_path / "packs") == [installed.folder]


def test_a_second_one_takes_the_place_only_when_told(pack, tmp_path):
    install_pack(pack, tmp_path / "packs")

    with pytest.raises(PackRefused, match="already installed"):
        install_pack(pack, tmp_path / "packs")
    install_pack(pack, tmp_path / "packs", replace=True)

    assert [p.name for p in (tmp_path / "packs").iterdir()] == [NAME]


@pytest.mark.parametrize("fault", ["changed", "no-manifest", "no-archive"])
def test_what_is_not_whole_leaves_nothing_behind(fault, pack, tmp_path):
    source = pack
    if fault == "changed":
        (pack / "CARD.md").write_text("better than it is")
    if fault == "no-manifest":
        (pack / "model.json").unlink()
    if fault == "no-archive":
        source = tmp_path / "p.zip"
        source.write_bytes(b"no archive")

    with pytest.raises(PackRefused):
        install_pack(source, tmp_path / "packs")

    assert installed_packs(tmp_path / "packs") == []


def test_a_pack_of_one_kind_is_refused_where_another_is_wanted():
    assert load_pack(PACKS / NAME, PackManifest).manifest.kind == "contour"
    with pytest.raises(PackRefused, match="kind contour"):
        load_pack(PACKS / NAME, SyntheticCtManifest)
