"""A label map to be filled in, from what a foreign model says of itself."""

from collections.abc import Callable, Collection
from pathlib import Path

from models.foreign.importing import describe
from models.foreign.nnunet import is_nnunet

HEAD = """\
# Label map of {name} ({kind}). Check every line: a wrong name is a wrong contour.
id: {id}
version: "1"
title: {title}
body_region: any        # head and neck, thorax, abdomen, pelvis, or any
{orientation}licence: "{licence}"
intended_use: "{use}"
contraindications: "other body regions, MR, CBCT, children"
reviewed_by: ""         # who compared the names with the training data, and when
labels:                 # a class without a name is left out
"""
ORIENTATION = """\
orientation: ""         # toward which side columns, rows, slices of training grew: RAS or LPS
"""


def draft(folder: Path, known: Collection[str], suggest: Callable[[str], str | None]) -> str:
    """Return the text of a label map.

    Parameters
    ----------
    folder
        A trained nnU-Net v2 folder, or a MONAI bundle.
    known
        Names that the node can write.
    suggest
        Any name -> the TG-263 name that it probably means.

    Raises
    ------
    ForeignRefused
        Where the node cannot run it.
    """
    nnunet = is_nnunet(folder)
    source = describe(folder, "RAS" if nnunet else "")
    lines = []
    for name in source.labels.values():
        meant = suggest(name.replace("_", " "))
        lines.append(f"  {name}: {meant if meant in known else ''}".rstrip())
    id_ = "".join(c if c.isalnum() else "-" for c in source.name.lower()).strip("-")
    return HEAD.format(
        name=source.name,
        kind=source.kind,
        id=id_,
        title=source.name,
        orientation=ORIENTATION if nnunet else "",
        licence=source.licence,
        use=source.intended_use,
    ) + "".join(f"{line}\n" for line in lines)
