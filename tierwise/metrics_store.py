"""Asks a database of telemetry itself, and brings its tables up to date (extra ``cloud``)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.errors import StartError

if TYPE_CHECKING:
    from sqlalchemy import Engine

_PAGE = 5000


def open_store(store: str) -> Engine:
    """The engine of a URL, or of a SQLite file that is there.

    Raises:
        StartError: there is none, or the extra is not installed.
    """
    try:
        from cloud_tier.telemetry.database import open_engine, parse  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise StartError(f"--store needs {error.name}: pip install 'tierwise[cloud]'") from error
    url = parse(store if "://" in store else f"sqlite:///{store}")
    if url.drivername == "sqlite" and not Path(url.database or "").is_file():
        raise StartError(
            f"there is no file {url.database}: the cloud tier makes telemetry.sqlite in its state "
            "folder"
        )
    return open_engine(url.render_as_string(hide_password=False))


def ask_store(
    store: str, metric: str, words: Mapping[str, str], limit: int
) -> list[dict[str, Any]]:
    """The pages of an answer, as the HTTP service has them.

    Raises:
        RequestError: the question is not understood.
        StartError: there is no such database, or it has no tables.
        StorageError: it does not answer.
    """
    engine = open_store(store)
    # Needs the extra, which is there by now.
    from cloud_tier.telemetry.asking import question  # noqa: PLC0415
    from cloud_tier.telemetry.database import shown  # noqa: PLC0415
    from cloud_tier.telemetry.limits import Retention  # noqa: PLC0415
    from cloud_tier.telemetry.migrating import schema_state  # noqa: PLC0415
    from cloud_tier.telemetry.reading import answer  # noqa: PLC0415

    try:
        state = schema_state(engine)
        if not state.is_current:
            raise StartError(
                f"the tables of {shown(engine.url)} are of revision {state.found or 'none'}, not "
                f"{state.wanted}: `tierwise store migrate --store URL` brings them there"
            )
        pages: list[dict[str, Any]] = []
        asked, left = dict(words), limit
        while left > 0:
            now_s = time.time()
            size = {"limit": str(min(left, _PAGE))}
            wanted = question(metric, {**asked, **size}, now_s=now_s, retention=Retention())
            pages.append(msgspec.to_builtins(answer(engine, wanted, now_s=now_s)))
            left -= len(pages[-1]["rows"])
            asked["cursor"] = pages[-1]["next"]
            if not asked["cursor"]:
                break
        return pages
    finally:
        engine.dispose()
