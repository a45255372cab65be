"""Between pipeline and outbox: the objects of a job as its destinations can import them.

One job has one set of objects. What a rule of any destination wants fixed is fixed before an
object exists anywhere, for all destinations of the job: archive and planning system then hold the
same object under the same UID, and it is not the UID of the object without the fix. What cannot
be fixed without touching geometry or identity is held, for the destination that minds alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pipelines.api import DerivedObject, Finding, OutputInvalid, Severity
from pipelines.dicom.header import derived_object, save
from pipelines.dicom.import_check import Problem, problems
from pipelines.dicom.import_fixes import FIXES, own_uid, references, rename, shapes
from pipelines.dicom.import_profiles import Action, Profile, Rule
from pipelines.dicom.read import read_dataset, read_header, text, tolerant

HINT: Final = (
    "`rtnode check FILE --profile NAME` shows it; correct what made it, or change the rules of the"
    " destination's profile when it takes such objects; `rtnode retry JOB` sends it as it is"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Objects that may be recorded, and what was found about them."""

    objects: tuple[DerivedObject, ...]
    findings: tuple[Finding, ...]
    held: Mapping[str, tuple[str, str]]
    """Destination -> (reason, hint): what this job made waits there for a person."""


def prepare(objects: Sequence[DerivedObject], profiles: Mapping[str, Profile]) -> Prepared:
    """Fix and judge the objects of a job for the profiles of its destinations.

    Parameters
    ----------
    objects : sequence of DerivedObject
        As the pipeline wrote them; a file that is fixed is replaced.
    profiles : mapping
        Destination -> its profile; destinations without one are not named.

    Raises
    ------
    OutputInvalid
        A fix would have changed geometry: a mistake of ours, nothing is sent.
    """
    findings: list[Finding] = []
    for name in sorted(profiles):
        objects, fixed = _fixed(objects, profiles[name])
        findings += [_finding("tps-fixed", Severity.INFO, name, line) for line in fixed]
    held: dict[str, tuple[str, str]] = {}
    for name in sorted(profiles):
        rules = profiles[name].rules
        reasons: list[str] = []
        for problem in judge([o.path for o in objects], profiles[name]):
            line = f"{problem.rule}: {problem.message}"
            if rules[problem.rule].action is Action.WARN:
                findings.append(_finding("tps-warning", Severity.WARN, name, line))
            else:
                findings.append(_finding("tps-held", Severity.WARN, name, line))
                reasons.append(line)
        if reasons:
            held[name] = (f"not for this destination: {'; '.join(reasons)}", HINT)
    return Prepared(objects=tuple(objects), findings=tuple(findings), held=held)


def judge(paths: Sequence[Path], profile: Profile) -> list[Problem]:
    """Return what the files break of a profile, but for what it ignores.

    Raises
    ------
    InputRejected
        A file is no DICOM object.
    """
    headers = [read_header(path) for path in paths]
    syntaxes = [str(ds.file_meta.get("TransferSyntaxUID", "")) for ds in headers]
    rules = profile.rules
    found = problems(headers, rules, syntaxes=syntaxes)
    return [p for p in found if rules[p.rule].action is not Action.IGNORE]


def _fixed(
    objects: Sequence[DerivedObject], profile: Profile
) -> tuple[list[DerivedObject], list[str]]:
    """Make the repairs that a profile asks for; return the objects and what was changed."""
    wanted = {name: rule for name, rule in profile.rules.items() if rule.action is Action.FIX}
    changed: dict[str, list[str]] = {}
    for derived in objects:
        found = judge([derived.path], profile)
        broken = {p.rule for p in found if p.repairable} & wanted.keys()
        if broken and "character-set" not in {p.rule for p in found}:
            changed[derived.sop_instance_uid] = _mend(derived.path, {r: wanted[r] for r in broken})
    uids = {uid: own_uid(uid, changes) for uid, changes in changed.items()}
    while follow := _referring(objects, uids):
        uids |= follow
    return [_renamed(o, uids) for o in objects], [c for lines in changed.values() for c in lines]


def _mend(path: Path, rules: Mapping[str, Rule]) -> list[str]:
    """Repair what breaks `rules` in a file; return what was changed."""
    ds = read_dataset(path)
    with tolerant():
        before = shapes(ds)
        changes = [
            line for rule, fix in FIXES.items() if rule in rules for line in fix(ds, rules[rule])
        ]
        if shapes(ds) != before:
            raise OutputInvalid("a repair for the destination changed contours")
    _save(ds, path)
    return changes


def _referring(objects: Sequence[DerivedObject], uids: Mapping[str, str]) -> dict[str, str]:
    """Return old -> new UID of objects that refer to one of `uids` and are not among them."""
    found: dict[str, str] = {}
    if not uids:
        return found
    for derived in objects:
        if derived.sop_instance_uid not in uids:
            named = references(read_header(derived.path), uids)
            if named:
                found[derived.sop_instance_uid] = own_uid(
                    derived.sop_instance_uid, [f"refers to {uids[uid]}" for uid in named]
                )
    return found


def _renamed(derived: DerivedObject, uids: Mapping[str, str]) -> DerivedObject:
    """Write an object anew with its own UID and those that it refers to; others stay untouched."""
    if derived.sop_instance_uid not in uids:
        return derived
    ds = read_dataset(derived.path)
    with tolerant():
        rename(ds, uids)
    _save(ds, derived.path)
    return replace(
        derived_object(ds, derived.path), series_instance_uid=derived.series_instance_uid
    )


def _save(ds: Dataset, path: Path) -> None:
    """Write a data set in its own transfer syntax; it was read whole."""
    implicit = text(ds.file_meta, "TransferSyntaxUID") == "1.2.840.10008.1.2"
    save(ds, path, implicit=implicit)


def _finding(code: str, severity: Severity, destination: str, line: str) -> Finding:
    return Finding(code=code, severity=severity, message=f"for {destination}: {line}")
