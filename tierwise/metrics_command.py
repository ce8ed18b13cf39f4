"""``tierwise metrics``: asks the cloud tier, a database or decision logs, and prints the answer."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import RequestError
from tierwise.cli.metrics import OF_LOGS, dimensions, duration_s
from tierwise.cli.output import note, say_csv, say_json
from tierwise.cli.parser import UsageError
from tierwise.metrics_client import MetricsClient, flat, question_words
from tierwise.metrics_view import tell_table
from tierwise.operator_access import access_of

_DEFAULT_BY = ("tier",)


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says."""
    try:
        if getattr(arguments, "state", None):
            _of_logs(arguments, arguments.state)
        else:
            _of_telemetry(arguments)
    except RequestError as error:
        raise UsageError(str(error)) from error
    return 0


def _of_telemetry(arguments: argparse.Namespace) -> None:
    if arguments.limit < 1:
        raise UsageError(f"--limit is a whole number above 0, not {arguments.limit}")
    words = question_words(
        arguments.since or "",
        arguments.until or "",
        arguments.by or "",
        arguments.where or "",
        arguments.order or "",
    )
    if getattr(arguments, "retired", False):
        words["retired"] = "yes"
    if arguments.store:
        from tierwise.metrics_store import ask_store  # noqa: PLC0415 - needs the extra

        reports = ask_store(arguments.store, arguments.metric, words, arguments.limit)
        place = "that database"
    else:
        access = access_of(arguments)
        try:
            client = MetricsClient(access.url, token=access.token)
        except ValueError as error:
            raise UsageError(f"--url: {error}") from error
        reports = [client.report(arguments.metric, {**words, "limit": str(arguments.limit)})]
        place = access.url
    last = reports[-1]
    rows = [row for report in reports for row in flat(report)]
    more = {name: last[name] for name in ("since_s", "until_s", "grain_s", "notes")}
    _tell(arguments, last["by"], rows, {"next": last.get("next", ""), **more})
    if not rows:
        _say_what_to_do(arguments, place)
    for text in last["notes"]:
        note(text)
    if last.get("next"):
        note(f"there are more than {arguments.limit} rows: --limit, --where or fewer --by")


def _say_what_to_do(arguments: argparse.Namespace, place: str) -> None:
    period = arguments.since or "24h"
    if arguments.metric == "accuracy":
        wanted = "send feedback, or let a policy audit answers"
    elif arguments.metric == "agreement":
        wanted = "let a policy audit answers"
    else:
        wanted = "send requests (devices tell of them about once a minute)"
    logs = ", or ask the decision logs of this machine with --state DIR"
    note(
        f"no {arguments.metric} since {period} at {place}: {wanted}, or ask with a longer --since "
        f"or another --where{logs if arguments.metric in OF_LOGS else ''}"
    )


def _of_logs(arguments: argparse.Namespace, folders: Sequence[Path]) -> None:
    from runtime.adapters.decision_query import (  # noqa: PLC0415 - reads SQLite's module
        logs_in,
        query_escalations,
        query_latency,
    )

    for name in ("until", "where", "order", "url"):
        if getattr(arguments, name):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is for the cloud tier and --store, not for --state")
    try:
        since_s = time.time() - duration_s(arguments.since) if arguments.since else 0.0
        by = dimensions(_as_logs_have_it(arguments.by)) if arguments.by else _DEFAULT_BY
    except argparse.ArgumentTypeError as error:
        raise UsageError(str(error)) from error
    paths = [path for folder in folders for path in logs_in(folder)]
    ask = query_escalations if arguments.metric == "escalations" else query_latency
    report = ask(paths, since_s=since_s, by=by)
    rows = []
    for row in report.rows[: arguments.limit]:
        values = dataclasses.asdict(row)
        rows.append({**dict(zip(by, values.pop("group"), strict=True)), **values})
    _tell(arguments, list(by), rows, {"deleted_decisions": report.num_deleted})
    if not rows:
        period = " in that time" if arguments.since else ""
        wider = ", or ask with a longer --since" if arguments.since else ""
        shown = ", ".join(map(str, folders))
        note(
            f"no decisions{period} in {len(paths)} decision log(s) in {shown}: send requests{wider}"
        )
    if report.num_deleted:
        note(f"{report.num_deleted} older decisions were deleted to keep the logs in their quota")


def _as_logs_have_it(by: str) -> str:
    names = (name.strip() for name in by.split(","))
    return ",".join("model_version" if name == "version" else name for name in names)


def _tell(
    arguments: argparse.Namespace,
    by: Sequence[str],
    rows: list[dict[str, Any]],
    more: dict[str, Any],
) -> None:
    if arguments.json:
        say_json({"by": list(by), "rows": rows, **more})
    elif arguments.csv:
        if rows:
            head = list(rows[0])
            say_csv(head, [[_cell(row[name]) for name in head] for row in rows])
    elif arguments.plot:
        from tierwise.metrics_plot import draw  # noqa: PLC0415 - an extra

        if rows:
            draw(arguments.plot, arguments.metric, by, rows, value=arguments.value or "")
            note(f"written: {arguments.plot}")
    elif rows:
        tell_table(by, rows)


def _cell(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value
