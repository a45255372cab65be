"""The tables of the conformance statement that are the same for every configuration.

Each is printed from the table that the code obeys, so the statement cannot drift (PS3.2 annex N).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from node.cli.conformance.markdown import table
from node.lifecycle import DELIVERY_TRANSITIONS, JOB_TRANSITIONS, SERIES_TRANSITIONS
from node.scp import contexts, negotiation
from node.scp.commitment import STATUSES
from node.scp.status import FAILURES, SUCCESS
from node.scp.wire import LENGTH_LIMITS, P_DATA
from node.scu.archives import RETRIEVED_CLASSES
from node.scu.query import SERVICES
from node.scu.sender import EXPLICIT, IMPLICIT, VERDICTS
from node.scu.transaction import PUSH_MODEL
from node.store.commitments import REASONS
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pipelines.catalog import PIPELINES

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

_UNCOMPRESSED: Final = ", ".join(contexts.STORAGE_SYNTAXES[uid] for uid in (EXPLICIT, IMPLICIT))
REJECTIONS: Final = {
    negotiation.CALLED_NOT_RECOGNIZED: "the called AE title is not in `node.ae_titles`",
    negotiation.CALLING_NOT_RECOGNIZED: "the calling AE title is not a peer with `receive: true`,"
    " calls from another address, or calls the plain port and has `tls: true`",
    negotiation.CERTIFICATE_OF_ANOTHER: "the certificate of a TLS connection is not that of the"
    " calling AE",
    negotiation.APPLICATION_CONTEXT_NOT_SUPPORTED: "the application context is not that of DICOM",
    negotiation.PROTOCOL_VERSION_NOT_SUPPORTED: "the protocol version is not 1",
    negotiation.LOCAL_LIMIT_EXCEEDED: "a limit of associations is reached, in total or from one"
    " address",
}
"""Every rejection that the receiver sends -> when."""


def fixed() -> dict[str, str]:
    """Return name in the template -> table."""
    return {
        "sop_classes": sop_classes(),
        "association": association(),
        "implementation": table(
            ("Implementation Class UID", "Implementation Version Name"),
            [(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)],
        ),
        "rejections": table(
            ("rejected when", "result, source, reason"),
            [
                (when, f"{answer.result}, {answer.source}, {answer.reason}")
                for answer, when in REJECTIONS.items()
            ],
        ),
        "accepted": accepted(),
        "syntaxes": table(
            ("transfer syntax, in order of preference", "UID"),
            [(name, uid) for uid, name in contexts.STORAGE_SYNTAXES.items()],
        ),
        "proposed": proposed(),
        "receive_status": table(
            ("status", "meaning"),
            [
                (f"{SUCCESS:04X}", "Durable: bytes, name and receipt are synced to disk."),
                *((f"{answer.status:04X}", answer.meaning) for _, answer in FAILURES),
            ],
        ),
        "send_status": table(
            ("status of the peer", "meaning to us", "what we do"),
            [
                (_span(v.lowest, v.highest), v.meaning, v.outcome.replace("_", " ").lower())
                for v in VERDICTS
            ],
        ),
        "commitment_status": table(
            ("status", "meaning"),
            [(f"{status:04X}", meaning) for status, meaning in STATUSES.items()],
        ),
        "commitment_reasons": table(
            ("failure reason", "meaning"),
            [(f"{reason:04X}", meaning) for reason, meaning in REASONS.items()],
        ),
        "pipelines": table(
            ("pipeline", "version", "starts with", "needs", "takes if there"),
            [
                (
                    p.name,
                    p.version,
                    " or ".join(p.starts_on),
                    _words(p.required),
                    _words(p.optional),
                )
                for p in PIPELINES.values()
            ],
        ),
        "series_states": _steps(SERIES_TRANSITIONS),
        "job_states": _steps(JOB_TRANSITIONS),
        "delivery_states": _steps(DELIVERY_TRANSITIONS),
    }


def sop_classes() -> str:
    """Return every SOP class with the roles of the node."""
    return table(
        ("SOP class", "SOP Class UID", "SCU", "SCP"),
        [
            ("Verification", contexts.VERIFICATION, "yes", "yes"),
            ("Storage Commitment Push Model", PUSH_MODEL, "yes", "yes"),
            *((name, uid, "yes", "no") for uid, name in SERVICES.items()),
            ("Storage: the classes of 1.1, with their UIDs in 5.3.1", "", "yes", "yes"),
        ],
    )


def association() -> str:
    """Return what holds for every association."""
    return table(
        ("", ""),
        [
            ("application context", "1.2.840.10008.3.1.1.1"),
            ("maximum PDU announced, both directions", f"{negotiation.MAXIMUM_PDU_LENGTH} bytes"),
            ("longest PDU that is read", f"{LENGTH_LIMITS[P_DATA]} bytes"),
            ("associations accepted at one time", "`node.max_associations`, from one address"
             " `node.max_associations_per_address`"),
            ("associations opened at one time", "one to each destination; one for commitment"
             " requests, one for commitment reports, one for queries and retrievals"),
            ("asynchronous operations", "none: one operation each way; the item is not answered"),
            ("SOP class extended negotiation, common extended negotiation", "none"),
            ("user identity negotiation", "none; the item is passed over"),
            ("SCP/SCU role selection", "Storage Commitment: both roles; C-GET as user: SCP role for"
             " storage; else none"),
        ],
    )  # fmt: skip


def accepted() -> str:
    """Return the presentation contexts that the receiver accepts."""
    every = "each of the list below"
    echo = ", ".join(contexts.VERIFICATION_SYNTAXES.values())
    return table(
        ("abstract syntax", "UID", "transfer syntaxes", "role", "extended negotiation"),
        [
            ("Verification", contexts.VERIFICATION, echo, "SCP", "none"),
            ("Storage Commitment Push Model", PUSH_MODEL, _UNCOMPRESSED,
             "SCP; SCU for reports", "none"),
            *((name, uid, every, "SCP", "none") for uid, name in contexts.STORAGE_CLASSES.items()),
        ],
    )  # fmt: skip


def proposed() -> str:
    """Return the presentation contexts that the node proposes."""
    retrieved = ", ".join(contexts.STORAGE_CLASSES[uid] for uid in RETRIEVED_CLASSES)
    return table(
        ("activity", "abstract syntax", "transfer syntaxes", "role", "extended negotiation"),
        [
            ("test a peer", "Verification", _UNCOMPRESSED, "SCU", "none"),
            ("send objects", "the SOP classes of what is sent",
             "the one it is stored in; for Explicit and Implicit VR Little Endian the other too",
             "SCU", "none"),
            ("ask for commitment", "Storage Commitment Push Model", _UNCOMPRESSED, "SCU", "none"),
            ("report on commitment", "Storage Commitment Push Model", _UNCOMPRESSED,
             "SCP by role selection", "none"),
            *(("query and retrieve", name, _UNCOMPRESSED, "SCU", "none")
              for name in SERVICES.values()),
            ("retrieve by C-GET", retrieved, _UNCOMPRESSED, "SCP by role selection", "none"),
        ],
    )  # fmt: skip


def _steps(transitions: Mapping[tuple[S, E], S]) -> str:
    return table(
        ("from", "event", "to"),
        [
            (state, event.lower().replace("_", " "), to)
            for (state, event), to in transitions.items()
        ],
    )


def _span(lowest: int, highest: int) -> str:
    if (lowest, highest) == (0, 0xFFFF):
        return "any other"
    return f"{lowest:04X}" if lowest == highest else f"{lowest:04X}-{highest:04X}"


def _words(values: Iterable[str]) -> str:
    return ", ".join(values) or "-"
