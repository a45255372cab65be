"""What a picture is of: which stored files are images, structures, doses and registrations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.domain import Instance
from node.store.records import JobDetail
from pipelines.api import Json, Role

_IMAGES: Final = {Role.CT: "CT", Role.CBCT: "CBCT", Role.PLANNING_CT: "planning CT"}
"""Role -> label, the image that all others are shown on first."""
_LARGEST: Final = 3000
"""Objects of one subject; more is no patient's study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """An image series."""

    label: str
    paths: tuple[Path, ...]
    derived: bool = False
    """True for what the node made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One object: a structure set, a dose."""

    label: str
    path: Path
    derived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Everything that belongs into one viewer."""

    key: str
    """Names the content: the same key is the same picture."""
    stacks: tuple[Stack, ...]
    structures: tuple[Single, ...] = ()
    doses: tuple[Single, ...] = ()
    registrations: tuple[Path, ...] = ()

    def tree(self) -> dict[str, Json]:
        """Return it as plain JSON, for the child process."""
        return {
            "key": self.key,
            "stacks": [
                {"label": s.label, "paths": [str(p) for p in s.paths], "derived": s.derived}
                for s in self.stacks
            ],
            "structures": [_single(one) for one in self.structures],
            "doses": [_single(one) for one in self.doses],
            "registrations": [str(path) for path in self.registrations],
        }


def subject_of_job(detail: JobDetail) -> Subject | None:
    """Return what can be seen of a job, inputs and results; None without an image."""
    inputs: dict[str, list[Path]] = {}
    for one in detail.job.inputs:
        inputs.setdefault(one.role, []).append(one.path)
    stacks = [
        Stack(label=label, paths=tuple(inputs[role]))
        for role, label in _IMAGES.items()
        if role in inputs
    ]
    results: dict[str, list[Path]] = {}
    for result in detail.results:
        if result.modality == "CT":
            results.setdefault(result.series_instance_uid, []).append(result.path)
    made = [Stack(label="synthetic CT", paths=tuple(p), derived=True) for p in results.values()]
    stacks[1:1] = made
    if not stacks or sum(len(stack.paths) for stack in stacks) > _LARGEST:
        return None
    drafts = [Single(label="draft", path=r.path, derived=True)
              for r in detail.results if r.modality == "RTSTRUCT"]  # fmt: skip
    return Subject(
        key=f"job:{detail.job.id}:{detail.job.token}:{len(detail.results)}",
        stacks=tuple(stacks),
        structures=(*drafts, *_singles("RTSTRUCT", inputs.get(Role.RTSTRUCT, ()))),
        doses=tuple(_singles("RTDOSE", inputs.get(Role.RTDOSE, ()))),
        registrations=tuple(inputs.get(Role.REG, ())),
    )


def subject_of_series(modality: str, uid: str, instances: Sequence[Instance]) -> Subject | None:
    """Return what can be seen of a series; None where it is no image series."""
    if modality != "CT" or not 2 <= len(instances) <= _LARGEST:  # noqa: PLR2004 - a volume
        return None
    return Subject(
        key=f"series:{uid}:{len(instances)}:{instances[-1].sha256[:12]}",
        stacks=(Stack(label=modality, paths=tuple(i.path for i in instances)),),
    )


def _singles(label: str, paths: Iterable[Path]) -> list[Single]:
    return [Single(label=label, path=path) for path in paths]


def _single(one: Single) -> dict[str, Json]:
    return {"label": one.label, "path": str(one.path), "derived": one.derived}
