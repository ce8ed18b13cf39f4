"""Reads what people and applications have said about answers; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from runtime.adapters.decision_log import FILE_NAME as DECISIONS
from runtime.adapters.log_file import reading
from runtime.adapters.outbox_schema import FILE_NAME
from runtime.core.dataset import Feedback
from runtime.messages import ItemKind


class _Said(msgspec.Struct):
    request_id: str
    label: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None
    is_correct: bool | None = None


_DECODER = msgspec.json.Decoder(_Said)


def feedback_in(state: Path) -> tuple[dict[str, Feedback], int]:
    """The latest feedback on each request id, arrived here or waiting to be sent.

    The number is of what could not be understood.

    Raises:
        StartError: a file cannot be read.
    """
    found: list[tuple[float, str, Feedback]] = []
    num_unreadable = 0
    for path in sorted(state.rglob(FILE_NAME)):
        for table in ("received", "items"):
            for created_s, body in _bodies_in(path, table):
                try:
                    said = _DECODER.decode(body)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    num_unreadable += 1
                else:
                    feedback = Feedback(said.label, said.is_correct)
                    found.append((created_s, said.request_id, feedback))
    found.sort(key=lambda one: one[0])
    return {request_id: said for _, request_id, said in found}, num_unreadable


def audits_in(state: Path) -> dict[str, bool]:
    """Whether the top tier agrees, by request id, for the audits that came back.

    Raises:
        StartError: a log cannot be read.
    """
    agrees: dict[str, bool] = {}
    for path in sorted(state.rglob(DECISIONS)):
        with reading(path, "audits") as log:
            if log is not None:
                query = "SELECT request_id, agrees FROM audits WHERE agrees IS NOT NULL"
                agrees |= {name: bool(is_so) for name, is_so in log.execute(query)}
    return agrees


def _bodies_in(path: Path, table: str) -> list[tuple[float, bytes]]:
    with reading(path, table) as box:
        if box is None:
            return []
        query = f"SELECT created_s, body FROM {table} WHERE kind = ?"  # noqa: S608 our own names
        return box.execute(query, (ItemKind.FEEDBACK.value,)).fetchall()
