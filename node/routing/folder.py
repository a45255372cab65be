"""A folder of DICOM files as candidates for selection: the node's rules without its ledger."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.config.match import Rule
from node.domain import AETitle, Instance, Source
from node.errors import CannotUnderstand
from node.routing.completeness import Patience, Verdict, Wholeness, examine
from node.routing.facts import Arrival, Candidate
from node.routing.keywords import SELECTION_KEYWORDS
from node.routing.recognize import is_ours, recognize, without_scouts
from node.store.header import read_header
from node.store.part10 import sha256_of_file

_FOLDER: Final = Source(
    calling_ae_title=AETitle("FOLDER"),
    called_ae_title=AETitle("FOLDER"),
    address="folder",
    association_id="00000000",
)
_ALL_HERE: Final = Arrival(
    quiet_s=float("inf"), open_associations=0, interrupted=False, one_by_one=False
)
"""A folder is read when it is whole, so silence has lasted long enough."""
_NO_PATIENCE: Final = Patience(after_release_s=0.0, otherwise_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder holds."""

    candidates: tuple[Candidate, ...]
    """Sorted by patient and series."""
    verdicts: dict[str, Verdict]
    """Series Instance UID -> is it whole, and why."""
    instances: int
    skipped: int
    """Files that are no DICOM objects."""


def scan(folder: Path, cbct: Iterable[Rule], keywords: Iterable[str] = ()) -> Found:
    """Return the series below `folder`; files that are no DICOM are counted and passed over.

    A SOP Instance UID that occurs twice with the same content counts once, with other content as
    a conflict, just as when it is received.
    """
    rules = tuple(cbct)
    wanted = {*SELECTION_KEYWORDS, *(k for rule in rules for k in rule.keywords), *keywords}
    first: dict[str, Instance] = {}
    conflicts: dict[str, set[str]] = defaultdict(set)
    skipped = 0
    for path in _files(folder):
        try:
            instance = _read(path, wanted)
        except CannotUnderstand:
            skipped += 1
            continue
        uid = instance.header.sop_instance_uid
        known = first.setdefault(uid, instance)
        if known.sha256 != instance.sha256:
            conflicts[known.header.series_instance_uid].add(uid)
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in first.values():
        groups[instance.header.series_instance_uid].append(instance)
    pairs = [_candidate(group, rules, conflicts[uid]) for uid, group in groups.items()]
    pairs.sort(key=lambda pair: (pair[0].patient_key, pair[0].series_instance_uid))
    return Found(
        candidates=tuple(candidate for candidate, _ in pairs),
        verdicts={candidate.series_instance_uid: verdict for candidate, verdict in pairs},
        instances=len(first),
        skipped=skipped,
    )


def strangers(candidates: Iterable[Candidate], patient_key: str) -> frozenset[str]:
    """Return the SOP Instance UIDs among `candidates` that belong to other patients."""
    return frozenset(
        i.header.sop_instance_uid
        for c in candidates
        if c.patient_key != patient_key
        for i in c.instances
    )


def _candidate(
    group: list[Instance], rules: tuple[Rule, ...], conflicts: set[str]
) -> tuple[Candidate, Verdict]:
    kind, _ = recognize(group, rules)
    slices = without_scouts(group) or tuple(group)
    verdict = examine(kind, slices, _ALL_HERE, _NO_PATIENCE, conflicts=len(conflicts))
    candidate = Candidate(
        series_instance_uid=group[0].header.series_instance_uid,
        patient_key=group[0].header.patient_key,
        kind=kind,
        complete=verdict.wholeness is Wholeness.WHOLE,
        instances=slices,
        ours=is_ours(group),
        conflicts=tuple(sorted(conflicts)),
    )
    return candidate, verdict


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder` in a fixed order; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file():
                yield path


def _read(path: Path, keywords: Iterable[str]) -> Instance:
    header = read_header(path, tuple(keywords))
    status = path.stat()
    return Instance(
        header=header,
        path=path.resolve(),
        sha256=sha256_of_file(path),
        size=status.st_size,
        source=_FOLDER,
        received_at=datetime.fromtimestamp(status.st_mtime, UTC),
        conflict=False,
    )
