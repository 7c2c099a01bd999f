"""Add an index of the instances that were restarted, for the metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("restarts > 0")
    op.create_index("ix_instance_restarts", "instance", ["service", "restarts"], sqlite_where=where)


def downgrade() -> None:
    op.drop_index("ix_instance_restarts", "instance")
