"""Files that retention removed: the row stays and says when."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the time at which the file of a blob was removed."""
    op.add_column("blob", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_blob_created_at", "blob", ["created_at"])


def downgrade() -> None:
    """Forget which files were removed: only safe where none was."""
    op.drop_index("ix_blob_created_at", "blob")
    op.drop_column("blob", "purged_at")
