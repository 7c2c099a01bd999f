"""Add the address that registered each lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lease", sa.Column("address", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("lease", "address")
