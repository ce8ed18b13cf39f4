"""A few decisions told whole.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INDICES = {
    "time": ("wall_s", "request_id"),
    "request": ("request_id",),
    "site": ("region", "site", "wall_s"),
    "model": ("model", "model_version", "wall_s"),
    "decided": ("decided_because", "wall_s"),
    "reason": ("reason", "wall_s"),
    "outcome": ("outcome", "wall_s"),
    "answered": ("answered_by", "wall_s"),
    "label": ("label", "wall_s"),
}


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(128), nullable=False) for name in names]


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "samples",
        sa.Column("digest", sa.String(32), primary_key=True),
        sa.Column("wall_s", sa.Float(53), nullable=False),
        *_words("request_id", "region", "site", "tier"),
        sa.Column("hop", sa.SmallInteger, nullable=False),
        *_words("model", "model_version", "action", "decided_because", "outcome", "reason"),
        *_words("answered_by"),
        sa.Column("label", sa.BigInteger),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    for name, columns in _INDICES.items():
        op.create_index(f"samples_by_{name}", "samples", list(columns))


def downgrade() -> None:
    """Drops the table, with all that is in it."""
    op.drop_table("samples")
