"""The tables: one truth for instances, decisions, jobs, results and deliveries.

The migrations under ``migrations/versions`` build them; a test holds both to be equal. No table
holds a patient's name, identifier or birth date: `patient_key` is a hash, `keywords` the routing
and geometry values. UIDs are as wide as they came (`node.domain.Uid`), so they are text.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from typing_extensions import override


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time: UTC in the database, aware UTC in Python.

    SQLite keeps no time zone, so the value is written as naive UTC there; a naive time from our
    own code is a mistake and refused.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return `value` as the database keeps it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone cannot be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored time as aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a later migration can drop it on every database."""

metadata: Final = MetaData(naming_convention=NAMING)


def _id() -> Column[Any]:
    """Return a surrogate key: 64 bits on PostgreSQL, the rowid on SQLite."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


association: Final = Table(
    "association",
    metadata,
    _id(),
    Column("association_id", Text, nullable=False, index=True),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, index=True),
    Column("end", Text, nullable=False),
    Column("received", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
)
"""One row an association; open while `ended_at` is null. `end`: RELEASED, ABORTED or LOST."""

blob: Final = Table(
    "blob",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("path", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("purged_at", UtcDateTime),
)
"""A file is valid only through its row here. `path` is relative to the data folder; `purged_at`
says when retention removed the file: the row, and all that points to it, stays."""

series: Final = Table(
    "series",
    metadata,
    Column("series_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, nullable=False, index=True),
    Column("patient_key", Text, nullable=False, index=True),
    Column("modality", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_received_at", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False, index=True),
)

instance: Final = Table(
    "instance",
    metadata,
    _id(),
    Column("sop_instance_uid", Text, nullable=False),
    Column("sha256", Text, ForeignKey("blob.sha256"), nullable=False, index=True),
    Column("sop_class_uid", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False, index=True),
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("frame_of_reference_uid", Text, index=True),
    Column("modality", Text, nullable=False),
    Column("patient_key", Text, nullable=False, index=True),
    Column("keywords", JSON, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("called_ae_title", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("association_id", Text, nullable=False, index=True),
    Column("received_at", UtcDateTime, nullable=False),
    Column("conflict", Boolean, nullable=False),
    UniqueConstraint("sop_instance_uid", "sha256"),
)
"""What was received. `conflict`: content that came under a UID that was already taken; it is kept
and shown, and is no part of its series."""

reference: Final = Table(
    "reference",
    metadata,
    Column("instance_id", BigInteger, ForeignKey("instance.id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("uid", Text, primary_key=True),
    Column("within", Text, index=True),
    Index("ix_reference_uid_kind", "uid", "kind"),
)
"""The UIDs that an instance points to; indexed both ways."""

job: Final = Table(
    "job",
    metadata,
    _id(),
    Column("dedupe", Text, nullable=False, unique=True),
    Column("route", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("pipeline_version", Text, nullable=False),
    Column("settings_json", Text, nullable=False),
    Column("destinations", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("series_revision", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", UtcDateTime),
    Column("not_before", UtcDateTime),
    Column("start_reason", Text, nullable=False),
    Column("correlation", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("superseded_by", Integer),
    Column("findings", JSON, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("report", Text, nullable=False),
)
"""`dedupe` makes a job exist once; `token` fences every write of a worker;
`superseded_by` is the newer revision of the trigger series."""

decision: Final = Table(
    "decision",
    metadata,
    _id(),
    Column(
        "series_instance_uid",
        Text,
        ForeignKey("series.series_instance_uid"),
        nullable=False,
    ),
    Column("series_revision", Integer, nullable=False),
    Column("route", Text, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("first_at", UtcDateTime, nullable=False),
    Column("job_id", BigInteger, ForeignKey("job.id"), index=True),
    UniqueConstraint("series_instance_uid", "series_revision", "route"),
)
"""What a route made of one revision of a series."""

job_input: Final = Table(
    "job_input",
    metadata,
    Column("job_id", BigInteger, ForeignKey("job.id"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("sop_instance_uid", Text, primary_key=True, index=True),
    Column("sha256", Text, ForeignKey("blob.sha256"), nullable=False),
)
"""The frozen input set."""

attempt: Final = Table(
    "attempt",
    metadata,
    Column("job_id", BigInteger, ForeignKey("job.id"), primary_key=True),
    Column("token", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
"""One row a claim; `outcome` is the `JobEvent` that ended it, empty while it runs."""

result: Final = Table(
    "result",
    metadata,
    _id(),
    Column("job_id", BigInteger, ForeignKey("job.id"), nullable=False, index=True),
    Column("sop_instance_uid", Text, nullable=False, unique=True),
    Column("sop_class_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False, index=True),
    Column("modality", Text, nullable=False),
    Column("sha256", Text, ForeignKey("blob.sha256"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
)
"""Derived objects; the first fenced commit fixes the bytes of a UID."""

delivery: Final = Table(
    "delivery",
    metadata,
    _id(),
    Column("job_id", BigInteger, ForeignKey("job.id"), nullable=False, index=True),
    Column("result_id", BigInteger, ForeignKey("result.id"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("not_before", UtcDateTime),
    Column("status", Integer),
    Column("reason", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    UniqueConstraint("destination", "sop_instance_uid"),
    Index("ix_delivery_state_destination", "state", "destination"),
)
"""The outbox: one row for each object and destination. `status`: the peer's last answer."""

commitment: Final = Table(
    "commitment",
    metadata,
    _id(),
    Column("direction", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("transaction_uid", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("direction", "peer", "transaction_uid"),
    Index("ix_commitment_state_direction", "state", "direction"),
)
"""A storage commitment transaction. ASKED: `peer` is a destination, `not_before` the deadline of
its report. RECEIVED: `peer` is the AE title that asked, `not_before` when we report (again)."""

commitment_item: Final = Table(
    "commitment_item",
    metadata,
    Column("commitment_id", BigInteger, ForeignKey("commitment.id"), primary_key=True),
    Column("sop_instance_uid", Text, primary_key=True),
    Column("sop_class_uid", Text, nullable=False),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id"), index=True),
)
"""The instances of a transaction; `delivery_id` where we asked."""

event: Final = Table(
    "event",
    metadata,
    _id(),
    Column("at", UtcDateTime, nullable=False),
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("correlation", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Index("ix_event_subject_kind", "subject", "kind"),
)
"""Append-only: what happened, written in the transaction of what happened."""

quarantine: Final = Table(
    "quarantine",
    metadata,
    _id(),
    Column("sha256", Text, nullable=False, unique=True),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("calling_ae_title", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("association_id", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
"""Bytes that we could not understand; `path` is empty where the quarantine was full."""

audit_export: Final = Table(
    "audit_export",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
"""The last event that a receiver of the audit trail has; what is younger still waits for it."""

acceptance: Final = Table(
    "acceptance",
    metadata,
    _id(),
    Column("sop_instance_uid", Text, nullable=False),
    Column("sha256", Text, ForeignKey("blob.sha256"), nullable=False),
    Column("job_id", BigInteger, ForeignKey("job.id"), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("sha256", "job_id"),
)
"""An approved structure set (`sha256`) that was held against the draft of a job, once; `reason`
says why there is nothing to compare, empty where there are scores."""

acceptance_score: Final = Table(
    "acceptance_score",
    metadata,
    Column("acceptance_id", BigInteger, ForeignKey("acceptance.id"), primary_key=True),
    Column("organ", Text, primary_key=True),
    Column("theirs", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("dice", Float, nullable=False),
    Column("surface_dice", Float, nullable=False),
    Column("hd95_mm", Float, nullable=False),
    Column("added_path_mm", Float, nullable=False),
    Column("volume_ml", Float, nullable=False),
    Column("volume_theirs_ml", Float, nullable=False),
    Column("unchanged", Boolean, nullable=False),
    Index("ix_acceptance_score_model_version_organ", "model", "version", "organ"),
)
"""How one structure of the draft agrees with the approved one; `organ` is our name, `theirs` the
name in the approved set."""
