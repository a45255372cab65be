"""What a person adds to a foreign model: names, licence, use; a YAML file that somebody reviewed.

    id: site-thorax
    version: "1"
    title: Thorax organs
    body_region: thorax            # head and neck, thorax, abdomen, pelvis, or any
    orientation: RAS               # toward which side columns, rows and slices of training grew
    licence: CC-BY-4.0             # of the weights; asked for where the folder does not say it
    intended_use: "research: draft contours on planning CT"
    contraindications: children, MR, CBCT
    reviewed_by: physicist, 2026-11-20
    labels:
      heart: Heart
      lung_upper_lobe_left:        # not wanted
      kidney_left: {name: Kidney_L, volume_ml: [60, 400]}

Every class of the network must stand under `labels`, so that none is left out by oversight.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from models.foreign.source import ForeignRefused, Source
from models.pack import DataSource, Output

REGIONS: Final = ("head and neck", "thorax", "abdomen", "pelvis", "any")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Label(_Part):
    """One class of the network."""

    name: str = Field(min_length=1, max_length=15)
    """TG-263 name."""
    components: Literal["largest", "tenth"] = "largest"
    volume_ml: tuple[float, float] | None = None


class LabelMap(_Part):
    """What a person says of a foreign model."""

    id: str = Field(pattern=r"^[a-z0-9_-]+$")
    version: str = "1"
    title: str
    body_region: Literal["head and neck", "thorax", "abdomen", "pelvis", "any"]
    orientation: str = ""
    licence: str = ""
    intended_use: str = ""
    contraindications: str = "not stated; other body regions, MR and CBCT in any case"
    reviewed_by: str = Field(min_length=1)
    data: tuple[DataSource, ...] = ()
    labels: Mapping[str, Label | str | None]


def read_labels(path: Path) -> LabelMap:
    """Return the label map in a YAML file.

    Raises
    ------
    ForeignRefused
        With every fault in it.
    """
    try:
        found: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        return LabelMap.model_validate(found)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ForeignRefused(f"{path.name}: " + "; ".join(faults)) from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ForeignRefused(f"{path.name} cannot be read: {type(error).__name__}") from error


def outputs(mapped: LabelMap, source: Source, known: Collection[str]) -> tuple[Output, ...]:
    """Return the structures of a pack: each class that was given a name.

    Parameters
    ----------
    known
        Names that the node can write.

    Raises
    ------
    ForeignRefused
        Where a class is missing, unknown or named twice, or a name is not one of `known`.
    """
    theirs = set(source.labels.values())
    faults = [
        f"'{name}' is missing" for name in source.labels.values() if name not in mapped.labels
    ]
    faults += [f"the network has no '{name}'" for name in mapped.labels if name not in theirs]
    found = []
    for index, name in source.labels.items():
        label = mapped.labels.get(name)
        if label is None:
            continue
        said = Label(name=label) if isinstance(label, str) else label
        if said.name not in known:
            faults.append(f"{said.name} is not a learned structure of this node")
        found.append(
            Output(
                index=index, name=said.name, components=said.components, volume_ml=said.volume_ml
            )
        )
    names = [output.name for output in found]
    faults += [f"{name} is given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if not found:
        faults.append("no class has a name")
    if faults:
        raise ForeignRefused("labels: " + "; ".join(faults))
    return tuple(found)
