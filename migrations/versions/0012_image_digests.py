"""Add the repository digest of each revision's image, so that a lost image can be pulled again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revision", sa.Column("image_digest", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("revision", "image_digest")
