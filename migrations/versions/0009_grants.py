"""Add the hosts and path prefixes that bind a token, and to each deployment the bounds of its author."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("token", sa.Column("hosts", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("token", sa.Column("path_prefixes", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("deployment", sa.Column("bound_to", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("deployment", "bound_to")
    op.drop_column("token", "path_prefixes")
    op.drop_column("token", "hosts")
