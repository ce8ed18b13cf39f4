"""Which audits of a log have been counted.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; what was counted before had no numbers."""
    op.add_column(
        "sources", sa.Column("audits_last", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column("sources", sa.Column("audit_gaps", sa.Text, nullable=False, server_default="[]"))


def downgrade() -> None:
    """Drops the columns."""
    op.drop_column("sources", "audit_gaps")
    op.drop_column("sources", "audits_last")
