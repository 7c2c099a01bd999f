"""Add since when and why an instance is unhealthy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("unhealthy_since", sa.Float(), nullable=True))
    op.add_column("instance", sa.Column("unhealthy_reason", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("instance", "unhealthy_reason")
    op.drop_column("instance", "unhealthy_since")
