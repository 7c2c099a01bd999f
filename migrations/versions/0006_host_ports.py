"""Add the host port of an instance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("host_port", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("instance", "host_port")
