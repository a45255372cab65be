"""The model packs that come with the node, by their manifests; weights are not read here."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import models

_PACKS: Final = Path(models.__path__[0]) / "packs"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackLine:
    """A model pack in one line."""

    name: str
    version: str
    title: str
    outputs: int


@cache
def packs() -> tuple[PackLine, ...]:
    """Return the packs; one whose manifest cannot be read is named and empty."""
    return tuple(_line(path) for path in sorted(_PACKS.glob("*/model.json")))


def _line(path: Path) -> PackLine:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return PackLine(
            name=str(manifest["id"]),
            version=str(manifest["version"]),
            title=str(manifest["title"]),
            outputs=len(manifest["outputs"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return PackLine(name=path.parent.name, version="", title="", outputs=0)
