"""What commands print: aligned tables, JSON, errors."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str) -> None:
    """A line on standard output: the result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line on standard error: what a person should know beside the result."""
    sys.stderr.write(f"{text}\n")


def say_json(value: object) -> None:
    """The result as indented JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def say_csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The result as comma-separated values."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)


def say_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> None:
    """The result as an aligned table; the last ``right`` columns are numbers."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    first_right = len(head) - right
    for line in lines:
        cells = [
            cell.rjust(width) if column >= first_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def tell_error(text: str, *, code: str, as_json: bool) -> None:
    """Tells what went wrong on standard error: a line each, or one JSON object."""
    if as_json:
        problem: dict[str, Any] = {"error": {"code": code, "message": text}}
        note(json.dumps(problem, ensure_ascii=False))
        return
    for line in text.splitlines():
        note(f"tierwise: {line}")
