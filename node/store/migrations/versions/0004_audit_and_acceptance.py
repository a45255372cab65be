"""How far the audit trail was handed on, and how approved contours agree with our drafts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "audit_export",
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("receiver", name="pk_audit_export"),
    )
    op.create_table(
        "acceptance",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name="fk_acceptance_sha256"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_acceptance_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_acceptance"),
        sa.UniqueConstraint("sha256", "job_id", name="uq_acceptance_sha256_job_id"),
    )
    op.create_index("ix_acceptance_job_id", "acceptance", ["job_id"])
    op.create_table(
        "acceptance_score",
        sa.Column("acceptance_id", sa.BigInteger(), nullable=False),
        sa.Column("organ", sa.Text(), nullable=False),
        sa.Column("theirs", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("dice", sa.Float(), nullable=False),
        sa.Column("surface_dice", sa.Float(), nullable=False),
        sa.Column("hd95_mm", sa.Float(), nullable=False),
        sa.Column("added_path_mm", sa.Float(), nullable=False),
        sa.Column("volume_ml", sa.Float(), nullable=False),
        sa.Column("volume_theirs_ml", sa.Float(), nullable=False),
        sa.Column("unchanged", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["acceptance_id"], ["acceptance.id"], name="fk_acceptance_score_acceptance_id"
        ),
        sa.PrimaryKeyConstraint("acceptance_id", "organ", name="pk_acceptance_score"),
    )
    op.create_index(
        "ix_acceptance_score_model_version_organ", "acceptance_score", ["model", "version", "organ"]
    )


def downgrade() -> None:
    """Drop the three tables: scores are lost, and can be made again from the files."""
    op.drop_table("acceptance_score")
    op.drop_table("acceptance")
    op.drop_table("audit_export")
