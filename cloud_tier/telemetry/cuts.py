"""Which rows answer a question: those of all dimensions, or shorter ones. Pure.

Most questions name few dimensions. A label, a gear or a site multiplies the rows that have to be
read and changes nothing of an answer that does not name it. So every row is also counted in rows of
fewer dimensions: a cut. A cut leaves out whole dimensions and never what a decision means, so that
its answers are those of the whole rows: counts exactly, quantiles of the very same sketches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cloud_tier.telemetry.asking import COLUMNS, Question
from cloud_tier.telemetry.intake import HOUR_S, MINUTE_S
from cloud_tier.telemetry.series import Series

_DETAIL = frozenset({"policy", "gear", "route", "guarantee", "label"})


class Cut(NamedTuple):
    """Rows without some columns of ``Series``; ``number`` is how the database knows them.

    ``finest_s`` is the width of its finest rows: minutes of a cut that is not short by much would
    take more room than they save time.
    """

    number: int
    without: frozenset[str]
    finest_s: int


# The shortest first. Numbers are kept in databases: a cut that changes gets a new one.
CUTS = (
    Cut(1, _DETAIL | {"site"}, MINUTE_S),
    Cut(2, _DETAIL, MINUTE_S),
    Cut(3, frozenset({"site"}), HOUR_S),
)
_METRICS = frozenset({"escalations", "latency", "cost", "rollouts", "fleet"})


def cut_of(asked: Question, by: Iterable[str] = ()) -> Cut | None:
    """The shortest cut that has all that a question names; None: only whole rows do.

    Args:
        asked: the question.
        by: by what it is read besides what it says itself.
    """
    if asked.metric not in _METRICS:
        return None
    names = {*asked.by, *by, *(one.name for one in asked.where)}
    columns = {COLUMNS[name] for name in names if name in COLUMNS}
    fit = (cut for cut in CUTS if not columns & cut.without and cut.finest_s <= asked.grain_s)
    return next(fit, None)


def shortened(series: Series, cut: Cut) -> Series:
    """The series without the dimensions that a cut leaves out."""
    named = zip(Series._fields, series, strict=True)
    return Series._make("" if name in cut.without else value for name, value in named)
