"""Add the token with which each audited event was caused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("event", sa.Column("actor_token", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("event", "actor_token")
