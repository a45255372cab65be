"""Storage commitment: what we asked of a destination, and what a peer asked of us."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "commitment",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_commitment"),
        sa.UniqueConstraint(
            "direction",
            "peer",
            "transaction_uid",
            name="uq_commitment_direction_peer_transaction_uid",
        ),
    )
    op.create_index("ix_commitment_state_direction", "commitment", ["state", "direction"])
    op.create_table(
        "commitment_item",
        sa.Column("commitment_id", sa.BigInteger(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["commitment_id"], ["commitment.id"], name="fk_commitment_item_commitment_id"
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["delivery.id"], name="fk_commitment_item_delivery_id"
        ),
        sa.PrimaryKeyConstraint("commitment_id", "sop_instance_uid", name="pk_commitment_item"),
    )
    op.create_index("ix_commitment_item_delivery_id", "commitment_item", ["delivery_id"])


def downgrade() -> None:
    """Drop the two tables: open requests are forgotten, deliveries stay."""
    op.drop_table("commitment_item")
    op.drop_table("commitment")
