"""Bring a model pack from a folder or an archive to where the node looks for packs.

Only the manifest and the files it names are copied, after every byte was checked; the pack appears
under its final name in one step. Nothing in it is run here.
"""

import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from models.pack import MANIFEST, PACKS, Pack, PackManifest, PackRefused, load_pack


def install_pack(source: Path, to: Path = PACKS, *, replace: bool = False) -> Pack[PackManifest]:
    """Install a pack under its id; return it.

    Parameters
    ----------
    source : Path
        The pack's folder, or a zip or tar archive with it.
    to : Path
        Folder of all packs.
    replace : bool
        Take the place of another pack of the same id.

    Raises
    ------
    PackRefused
        If the pack is incomplete or changed, or another one of its id is installed.
    """
    with tempfile.TemporaryDirectory(prefix="rtnode-pack-") as scratch:
        pack = load_pack(_opened(source, Path(scratch)), PackManifest)
        goal = to / pack.manifest.id
        if goal.exists() and not replace:
            raise PackRefused(f"{pack.manifest.id} is already installed")
        to.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=to))
        try:
            for name in (MANIFEST, *(f.path for f in pack.manifest.files)):
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pack.folder / name, beside / name)
            beside.chmod(0o755)
            if goal.exists():
                shutil.rmtree(goal)
            beside.rename(goal)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return load_pack(goal, PackManifest)


def installed_packs(folder: Path = PACKS) -> list[Path]:
    """Return the folders of all installed packs, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def _opened(source: Path, scratch: Path) -> Path:
    """Return the folder that holds the manifest."""
    if source.is_file():
        try:
            _extract(source, scratch)
        except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
            raise PackRefused(f"{source.name} is no archive that can be opened") from error
        source = scratch
    found = (
        [source]
        if (source / MANIFEST).is_file()
        else [p.parent for p in source.glob(f"*/{MANIFEST}")]
    )
    if len(found) != 1:
        raise PackRefused(f"there is no {MANIFEST} in {source.name}")
    return found[0]


def _extract(archive: Path, to: Path) -> None:
    """Unpack; members that lead outside of `to` are refused by both libraries."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            pack.extractall(to)  # noqa: S202 (zipfile drops absolute and parent paths)
        return
    with tarfile.open(archive) as tar:
        tar.extractall(to, filter="data")
