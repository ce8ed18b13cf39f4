"""Answers that wait for people, and what they said.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(128), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float(53), nullable=False) for name in names]


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _key(name: str, length: int = 64) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), primary_key=True)


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "review_items",
        _key("item"),
        *_words("state", "source"),
        _text("request_id", 256),
        *_words("region", "site", "tier", "model", "version", "policy", "gear"),
        _text("origin", 256),
        *_words("sender"),
        *_floats("at_s", "due_s"),
        *_numbers("label"),
        _text("label_name", 256),
        *_floats("confidence", "chance", "value"),
        sa.Column("answers", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        *_numbers("wanted", "num_labels"),
        sa.Column("winner", sa.BigInteger),
        *_floats("done_s"),
        sa.Column("told", sa.SmallInteger, nullable=False),
        *_numbers("header_length"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        *_numbers("num_bytes"),
    )
    op.create_index("review_items_by_state", "review_items", ["state", "due_s"])
    op.create_index("review_items_by_request", "review_items", ["request_id"])
    op.create_index("review_items_to_tell", "review_items", ["told", "done_s"])
    op.create_table(
        "review_given",
        *(_key("item"), _key("who")),
        sa.Column("label", sa.BigInteger),
        _text("why", 256),
        *_floats("at_s", "spent_s"),
        sa.Column("revised", sa.Boolean, nullable=False),
    )
    op.create_table(
        "review_leases",
        *(_key("item"), _key("who")),
        *_floats("until_s"),
        sa.Column("revises", sa.Boolean, nullable=False),
    )
    op.create_table(
        "review_callers",
        *(_key("request_id", 256), _key("origin", 256)),
        *_words("sender"),
        sa.Column("was", sa.Text, nullable=False),
        *_floats("at_s"),
        sa.Column("told", sa.SmallInteger, nullable=False),
    )
    op.create_index("review_callers_by_time", "review_callers", ["at_s"])


def downgrade() -> None:
    """Drops the tables, with all that is in them."""
    for name in ("review_callers", "review_leases", "review_given", "review_items"):
        op.drop_table(name)
