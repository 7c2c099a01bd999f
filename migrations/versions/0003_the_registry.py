"""Add registry leases, and the mapping from applications to services."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("app", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("instance", sa.String(), nullable=True),
        sa.Column("registration", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("override", sa.String(), nullable=False),
        sa.Column("registered_at", sa.Integer(), nullable=False),
        sa.Column("up_at", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("app", "id", name=op.f("pk_lease")),
    )
    op.create_table(
        "application",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("registration", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["service"], ["service.name"], name=op.f("fk_application_service_service")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_application")),
    )


def downgrade() -> None:
    op.drop_table("application")
    op.drop_table("lease")
