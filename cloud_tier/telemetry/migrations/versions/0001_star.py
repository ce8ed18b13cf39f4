"""Series with counts of minutes, hours and days; audits, feedback, sources.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_WORDS = (
    "region", "site", "tier", "model", "version", "policy", "gear", "route", "action", "decided",
    "outcome", "reason", "answered_by", "guarantee", "label",
)  # fmt: skip


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(128), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float(53), nullable=False) for name in names]


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def _counts() -> list[sa.Column[int] | sa.Column[float] | sa.Column[bytes]]:
    return [
        *_numbers("count", "late"),
        *_floats("sent_bytes", "service_us", "latency_ms_sum", "cost_sum"),
        *_numbers("confident"),
        *_floats("confidence_sum"),
        sa.Column("confidences", sa.LargeBinary, nullable=False),
        sa.Column("latency", sa.LargeBinary, nullable=False),
    ]


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "series",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("digest", sa.String(32), nullable=False, unique=True),
        *_words(*_WORDS),
        sa.Column("is_entry", sa.Boolean, nullable=False),
    )
    op.create_index("series_by_site", "series", ["region", "site"])
    op.create_table(
        "minute",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        *_numbers("bucket_s", "series_id"),
        sa.Column("added", sa.SmallInteger, nullable=False),
        *_counts(),
    )
    op.create_index("minute_by_time", "minute", ["bucket_s"])
    op.create_index(
        "minute_to_add",
        "minute",
        ["series_id", "bucket_s"],
        sqlite_where=sa.text("added = 0"),
        postgresql_where=sa.text("added = 0"),
    )
    for name in ("hour", "day"):
        op.create_table(name, _key("bucket_s"), _key("series_id"), *_counts())
    op.create_table(
        "audits",
        _key("bucket_s"),
        *(
            sa.Column(name, sa.String(128), primary_key=True)
            for name in ("region", "site", "policy", "gear")
        ),
        *_numbers("agreed", "disagreed", "failed"),
        *_floats("weighted_agreed", "weighted", "agreed_squares", "disagreed_squares"),
    )
    _create_feedback()
    _create_sources()


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        *_numbers("bucket_s"),
        *_words("region", "site", "model", "version", "policy", "gear", "outcome", "reason"),
        *_words("answered_by", "label"),
        sa.Column("is_correct", sa.Boolean),
    )
    op.create_index("feedback_by_time", "feedback", ["bucket_s"])


def _create_sources() -> None:
    op.create_table(
        "sources",
        sa.Column("digest", sa.String(32), primary_key=True),
        *_words("region", "site", "tier", "log"),
        *_numbers("last", "counted", "unread", "dropped", "repeated"),
        *_floats("heard_s"),
        sa.Column("gaps", sa.Text, nullable=False),
    )
    op.create_index("sources_by_site", "sources", ["region", "site"])
    op.create_table("applied", sa.Column("item", sa.String(64), primary_key=True), *_floats("at_s"))
    op.create_index("applied_by_time", "applied", ["at_s"])
    op.create_table("notes", sa.Column("name", sa.String(64), primary_key=True), *_numbers("count"))


def downgrade() -> None:
    """Drops the tables, with all that is in them."""
    for name in (
        "notes", "applied", "sources", "feedback", "audits", "day", "hour", "minute", "series",
    ):  # fmt: skip
        op.drop_table(name)
