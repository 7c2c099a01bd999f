"""Add traffic metrics, and the group number of the deployments of one file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "figure",
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("status_4xx", sa.Integer(), nullable=False),
        sa.Column("status_5xx", sa.Integer(), nullable=False),
        sa.Column("histogram", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("step", "at", "service", "revision", name=op.f("pk_figure")),
        sqlite_with_rowid=False,
    )
    op.add_column("deployment", sa.Column("group", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_deployment_group"), "deployment", ["group"])


def downgrade() -> None:
    op.drop_index(op.f("ix_deployment_group"), "deployment")
    op.drop_column("deployment", "group")
    op.drop_table("figure")
