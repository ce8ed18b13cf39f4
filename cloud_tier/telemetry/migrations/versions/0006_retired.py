"""Devices that are out of service for good.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "retired",
        sa.Column("region", sa.String(128), primary_key=True),
        sa.Column("site", sa.String(128), primary_key=True),
        sa.Column("at_s", sa.Float(53), nullable=False),
        sa.Column("by", sa.String(128), nullable=False),
        sa.Column("why", sa.String(512), nullable=False),
    )


def downgrade() -> None:
    """Drops the table: all devices are watched again."""
    op.drop_table("retired")
