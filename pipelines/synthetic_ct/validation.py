"""The validation report that switches a site's network on: what it holds, its seal, its check.

`rtnode sct validate` writes it; the pipeline reads it. The seal is a SHA-256 over the contents and
the name of the person who accepted it: it catches a changed report and a changed model, it does
not prove who signed.
"""

import hashlib
import json
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SEAL: Final = "seal_sha256"
LEAST_PAIRS: Final = 5
"""A site that has measured fewer has measured nothing."""


class ReportRefused(Exception):
    """The report cannot switch the network on; the message says why."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairResult(_Part):
    """One measured pair; errors in the body inside the field of view, HU."""

    name: str
    raw_mae: float
    classical_mae: float
    """Of the method that the node takes without a network."""
    network_mae: float | None
    """None where the network was refused."""
    network_me: float | None
    path_p95_mm: float | None
    verdict: str
    """Of the gates, for the network's image."""


class Criteria(_Part):
    """What the mean over all pairs must reach."""

    most_me_hu: float = 20.0
    most_path_p95_mm: float = 3.0
    most_failed_share: float = 0.05
    """Of pairs that the gates failed or the network was refused on."""


class ValidationReport(_Part):
    """What was measured, against what, and by whom it was accepted."""

    schema_version: Literal[1] = 1
    pack: str
    pack_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    made_at: str
    signed_by: str = Field(min_length=2)
    criteria: Criteria
    pairs: tuple[PairResult, ...]
    accepted: bool
    reasons: tuple[str, ...]
    """Why it was not accepted."""
    seal_sha256: str = ""

    def sealed(self) -> "ValidationReport":
        """Return the report with its seal."""
        return self.model_copy(update={SEAL: self.seal()})

    def seal(self) -> str:
        """Return the SHA-256 of everything but the seal."""
        contents = json.dumps(self.model_dump(mode="json", exclude={SEAL}), sort_keys=True)
        return hashlib.sha256(contents.encode()).hexdigest()


def read_report(path: str | None, pack_sha256: str) -> ValidationReport:
    """Return the report at `path` if it switches the pack `pack_sha256` on.

    Raises
    ------
    ReportRefused
        If there is none, or it is changed, of another model, or was not accepted.
    """
    if path is None:
        raise ReportRefused("this site has not validated the network")
    try:
        report = ValidationReport.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ReportRefused(f"the validation report cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ReportRefused("the validation report is not one of ours") from error
    if report.seal_sha256 != report.seal():
        raise ReportRefused("the validation report was changed after it was sealed")
    if report.pack_sha256 != pack_sha256:
        raise ReportRefused("the validation report is about another model")
    if not report.accepted:
        raise ReportRefused("the validation report did not accept the model")
    return report


def judge(pairs: tuple[PairResult, ...], criteria: Criteria) -> tuple[str, ...]:
    """Return why the pairs do not suffice; empty when they do."""
    reasons = []
    if len(pairs) < LEAST_PAIRS:
        reasons.append(f"{len(pairs)} pairs; at least {LEAST_PAIRS} are needed")
    ran = [p for p in pairs if p.network_mae is not None]
    if not ran:
        return (*reasons, "the network was refused on every pair")
    bad = sum(p.network_mae is None or p.verdict == "FAIL" for p in pairs) / len(pairs)
    if bad > criteria.most_failed_share:
        reasons.append(f"refused or failed by the gates on {bad:.0%} of the pairs")
    network, classical = (
        sum(values) / len(ran)
        for values in ([p.network_mae or 0.0 for p in ran], [p.classical_mae for p in ran])
    )
    if network > classical:
        reasons.append(f"network {network:.1f} HU, classical method {classical:.1f} HU")
    mean = sum(p.network_me or 0.0 for p in ran) / len(ran)
    if abs(mean) > criteria.most_me_hu:
        reasons.append(f"mean error {mean:+.1f} HU")
    path = max(p.path_p95_mm or 0.0 for p in ran)
    if path > criteria.most_path_p95_mm:
        reasons.append(f"path length off by {path:.1f} mm in the worst pair")
    return tuple(reasons)
