"""The tables: a star of series in the middle, and counts of minutes, hours and days around it.

    series     one row for each tuple of dimensions
    minute     counts as they came; ``added`` once they are in ``hour`` and ``day``, too
    hour, day  the same counts, added up; one row for each time and series
    short_*    the same counts again by fewer dimensions (``cuts``): ``short_new`` as they came,
               until they are added to ``short_minute``, ``short_hour`` and ``short_day``
    audits     audits by hour, region, site, policy and gear
    feedback   what people and applications said about answers
    sources    which numbers of which decision log have been counted
    retired    devices that were taken out of service for good
    applied    ids of items that are in the tables above, written in the same transaction
    notes      how often something happened that is not to go unseen
    samples    a few of the decisions that are counted above, told whole
    review_*   answers that wait for people, who looks at which, what they said, who waits for it

Alembic's revisions in ``migrations`` make them; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    and_,
    literal_column,
    text,
)

metadata = MetaData()
# SQLite numbers rows only for INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
_WORDS = (
    "region", "site", "tier", "model", "version", "policy", "gear", "route", "action", "decided",
    "outcome", "reason", "answered_by", "guarantee", "label",
)  # fmt: skip


def _word(name: str) -> Column[str]:
    return Column(name, String(128), nullable=False)


def _float(name: str) -> Column[float]:
    return Column(name, Float(53), nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _sums() -> tuple[Column[int] | Column[float], ...]:
    return (
        _number("count"),
        _number("late"),
        _float("sent_bytes"),
        _float("service_us"),
        _float("latency_ms_sum"),
        _float("cost_sum"),
        _number("confident"),
        _float("confidence_sum"),
    )


def _sketch(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _counts() -> tuple[Column[int] | Column[float] | Column[bytes], ...]:
    return (*_sums(), _sketch("confidences"), _sketch("latency"))


# Columns that are added up as numbers, and those that are sketches.
SUMS = (
    "count", "late", "sent_bytes", "service_us", "latency_ms_sum", "cost_sum", "confident",
    "confidence_sum",
)  # fmt: skip
SKETCHES = ("confidences", "latency")

series = Table(
    "series",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("digest", String(32), nullable=False, unique=True),
    *(_word(name) for name in _WORDS),
    Column("is_entry", Boolean, nullable=False),
    Index("series_by_site", "region", "site"),
)
minute = Table(
    "minute",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    _number("bucket_s"),
    _number("series_id"),
    Column("added", SmallInteger, nullable=False),
    *_counts(),
    Index("minute_by_time", "bucket_s"),
    Index(
        "minute_to_add",
        "series_id",
        "bucket_s",
        sqlite_where=text("added = 0"),
        postgresql_where=text("added = 0"),
    ),
)
# What leads both planners to the small index of rows that are not yet added: literals, because no
# parameter is known to fit a partial index, and a time (below) that no other index has.
NOT_ADDED = and_(minute.c.added == literal_column("0"), minute.c.series_id > literal_column("0"))
TIME_OF_NOT_ADDED = minute.c.bucket_s + literal_column("0")


def _added_up(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
        Column("series_id", BigInteger, primary_key=True, autoincrement=False),
        *_counts(),
    )


hour = _added_up("hour")
day = _added_up("day")
short_series = Table(
    "short_series",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("digest", String(32), nullable=False, unique=True),
    Column("cut", SmallInteger, nullable=False),
    *(_word(name) for name in _WORDS),
    Column("is_entry", Boolean, nullable=False),
)
short_new = Table(
    "short_new",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("cut", SmallInteger, nullable=False),
    _number("bucket_s"),
    _number("series_id"),
    *_sums(),
    _sketch("latency"),
    Index("short_new_by_time", "cut", "bucket_s"),
)


def _short(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
        Column("cut", SmallInteger, primary_key=True, autoincrement=False),
        Column("series_id", BigInteger, primary_key=True, autoincrement=False),
        *_sums(),
        _sketch("latency"),
    )


short_minute = _short("short_minute")
short_hour = _short("short_hour")
short_day = _short("short_day")
audits = Table(
    "audits",
    metadata,
    Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, String(128), primary_key=True) for name in ("region", "site", "policy", "gear")),
    _number("agreed"),
    _number("disagreed"),
    _number("failed"),
    _float("weighted_agreed"),
    _float("weighted"),
    # Sums of squared weights, of those that agreed and of those that did not.
    _float("agreed_squares"),
    _float("disagreed_squares"),
)
AUDIT_SUMS = (
    "agreed", "disagreed", "failed", "weighted_agreed", "weighted", "agreed_squares",
    "disagreed_squares",
)  # fmt: skip
feedback = Table(
    "feedback",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    _number("bucket_s"),
    *(
        _word(name)
        for name in (
            "region", "site", "model", "version", "policy", "gear", "outcome", "reason",
            "answered_by", "label",
        )
    ),
    Column("is_correct", Boolean),
    Index("feedback_by_time", "bucket_s"),
)  # fmt: skip
sources = Table(
    "sources",
    metadata,
    Column("digest", String(32), primary_key=True),
    _word("region"),
    _word("site"),
    _word("tier"),
    _word("log"),
    _number("last"),
    _number("counted"),
    _number("unread"),
    _number("dropped"),
    _number("repeated"),
    _float("heard_s"),
    Column("gaps", Text, nullable=False),
    # The same of the log's audits.
    Column("audits_last", BigInteger, nullable=False, server_default="0"),
    Column("audit_gaps", Text, nullable=False, server_default="[]"),
    Index("sources_by_site", "region", "site"),
)
retired = Table(
    "retired",
    metadata,
    Column("region", String(128), primary_key=True),
    Column("site", String(128), primary_key=True),
    _float("at_s"),
    _word("by"),
    Column("why", String(512), nullable=False),
)
applied = Table(
    "applied",
    metadata,
    Column("item", String(64), primary_key=True),
    _float("at_s"),
    Index("applied_by_time", "at_s"),
)
notes = Table("notes", metadata, Column("name", String(64), primary_key=True), _number("count"))
review_items = Table(
    "review_items",
    metadata,
    Column("item", String(64), primary_key=True),
    _word("state"),
    _word("source"),
    Column("request_id", String(256), nullable=False),
    *(_word(name) for name in ("region", "site", "tier", "model", "version", "policy", "gear")),
    Column("origin", String(256), nullable=False),
    _word("sender"),
    _float("at_s"),
    _float("due_s"),
    _number("label"),
    Column("label_name", String(256), nullable=False),
    _float("confidence"),
    _float("chance"),
    _float("value"),
    Column("answers", Text, nullable=False),
    Column("labels", Text, nullable=False),
    _number("wanted"),
    _number("num_labels"),
    Column("winner", BigInteger),
    _float("done_s"),
    # What has come of it: 0 nothing yet, 1 told.
    Column("told", SmallInteger, nullable=False),
    _number("header_length"),
    Column("body", LargeBinary, nullable=False),
    _number("num_bytes"),
    Index("review_items_by_state", "state", "due_s"),
    Index("review_items_by_request", "request_id"),
    Index("review_items_to_tell", "told", "done_s"),
)
review_given = Table(
    "review_given",
    metadata,
    Column("item", String(64), primary_key=True),
    Column("who", String(64), primary_key=True),
    Column("label", BigInteger),
    Column("why", String(256), nullable=False),
    _float("at_s"),
    _float("spent_s"),
    # Whether it was given after another one had been taken back, with the answers seen.
    Column("revised", Boolean, nullable=False),
)
review_leases = Table(
    "review_leases",
    metadata,
    Column("item", String(64), primary_key=True),
    Column("who", String(64), primary_key=True),
    _float("until_s"),
    Column("revises", Boolean, nullable=False),
)
review_callers = Table(
    "review_callers",
    metadata,
    Column("request_id", String(256), primary_key=True),
    Column("origin", String(256), primary_key=True),
    _word("sender"),
    Column("was", Text, nullable=False),
    _float("at_s"),
    Column("told", SmallInteger, nullable=False),
    Index("review_callers_by_time", "at_s"),
)
# Columns are named as in ``DecisionRecord``; those that requests are asked by are beside ``body``,
# which has all of a sample as JSON.
samples = Table(
    "samples",
    metadata,
    Column("digest", String(32), primary_key=True),
    _float("wall_s"),
    _word("request_id"),
    *(_word(name) for name in ("region", "site", "tier")),
    Column("hop", SmallInteger, nullable=False),
    *(_word(name) for name in ("model", "model_version", "action", "decided_because", "outcome")),
    *(_word(name) for name in ("reason", "answered_by")),
    Column("label", BigInteger),
    Column("body", LargeBinary, nullable=False),
    Index("samples_by_time", "wall_s", "request_id"),
    Index("samples_by_request", "request_id"),
    Index("samples_by_site", "region", "site", "wall_s"),
    Index("samples_by_model", "model", "model_version", "wall_s"),
    Index("samples_by_decided", "decided_because", "wall_s"),
    Index("samples_by_reason", "reason", "wall_s"),
    Index("samples_by_outcome", "outcome", "wall_s"),
    Index("samples_by_answered", "answered_by", "wall_s"),
    Index("samples_by_label", "label", "wall_s"),
)
