"""``tierwise explain``: the story of one request, from decision logs or from the cloud tier."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tierwise.cli.output import say, say_json

if TYPE_CHECKING:
    from runtime.adapters.policy_file import KnownPolicy
    from runtime.errors import StartError
    from runtime.ports import DecisionRecord

LATEST = "latest"
NUM_NAMED = 5


def run(arguments: argparse.Namespace) -> int:
    """Finds the request and tells its story."""
    # Here, so that `tierwise --help` stays quick.
    from runtime.errors import StartError  # noqa: PLC0415

    try:
        story, said = _in_logs(arguments)
    except StartError as error:
        story, said = _in_cloud(arguments, error)
    if arguments.json:
        say_json(story)
        return 0
    for line in said:
        say(line)
    return 0


Told = tuple[dict[str, Any], Sequence[str]]


def _in_logs(arguments: argparse.Namespace) -> Told:
    """The story that decision logs tell, and its paragraphs."""
    import msgspec  # noqa: PLC0415

    from runtime.adapters.decision_query import logs_in  # noqa: PLC0415
    from runtime.adapters.explain_query import audits_of, story_of  # noqa: PLC0415
    from runtime.core.story import paragraphs  # noqa: PLC0415

    paths = logs_in(arguments.state)
    records = _records(arguments.request_id, paths)
    known = _policy(arguments.policy, {record.policy for record in records})
    audits = audits_of(paths, records[0].request_id)
    story = story_of(records, known=known, labels=_labels(records), audits=audits)
    # Numbers that JSON does not have become null on the way.
    return json.loads(msgspec.json.encode(story)), paragraphs(story)


def _in_cloud(arguments: argparse.Namespace, not_here: StartError) -> Told:
    """The same from the cloud tier, which has samples of all tiers.

    Raises:
        ServiceError: it does not know the request.
        StartError: no log here has it, and there is no cloud tier to ask, or it knows of none.
    """
    from runtime.errors import StartError  # noqa: PLC0415
    from tierwise.operator_access import access_of  # noqa: PLC0415

    try:
        access = access_of(arguments)
    except StartError as error:
        if arguments.operator:
            raise
        raise not_here from error
    try:
        story = asyncio.run(_asked(access.url, access.token, arguments.request_id))
    except StartError as error:
        raise StartError(f"{not_here}; {error}") from error
    said = [str(line) for line in story.pop("paragraphs", ())]
    story.pop("hops", None)
    return story, said


async def _asked(url: str, token: str, request_id: str) -> dict[str, Any]:
    from runtime.errors import StartError  # noqa: PLC0415
    from tierwise.cloud_client import CloudClient  # noqa: PLC0415

    async with CloudClient(url, token) as client:
        if request_id == LATEST:
            newest = (await client.get("/api/v1/requests", limit=1))["requests"]
            if not newest:
                raise StartError(f"nobody has told the cloud tier at {url} of a request yet")
            request_id = newest[0]["request_id"]
        return await client.get(f"/api/v1/requests/{quote(request_id, safe='')}")


def _records(request_id: str, paths: Sequence[Path]) -> Sequence[DecisionRecord]:
    from runtime.adapters.explain_query import find_decisions, newest_ids  # noqa: PLC0415
    from runtime.core.reasons import plain  # noqa: PLC0415
    from runtime.errors import StartError  # noqa: PLC0415

    newest = newest_ids(paths, NUM_NAMED)
    records = find_decisions(paths, request_id)
    if not records and request_id == LATEST and newest:
        records = find_decisions(paths, newest[0])
    if not records:
        rest = f" and {len(paths) - NUM_NAMED} more" if len(paths) > NUM_NAMED else ""
        logs = ", ".join(map(str, paths[:NUM_NAMED])) + rest
        named = ", ".join(map(plain, newest))
        there = f"the newest there are {named}" if newest else "there are no decisions in them"
        raise StartError(f"no decision about {plain(request_id)!r} in {logs}: {there}")
    return records


def _policy(path: Path | None, followed: set[str]) -> KnownPolicy | None:
    """The policy of the file; without one the bundled policy, where that was followed."""
    from model_zoo.catalog import bundled_policy  # noqa: PLC0415
    from runtime.adapters.policy_file import read_policy  # noqa: PLC0415

    if path is not None:
        return read_policy(path)
    if not any(followed) or (bundled := bundled_policy()) is None:
        return None
    known = read_policy(bundled)
    return known if known.short in followed else None


def _labels(records: Sequence[DecisionRecord]) -> tuple[str, ...]:
    """The label names of the bundled models, where one of them answered."""
    from model_zoo.catalog import bundled_model  # noqa: PLC0415
    from runtime.adapters.artifacts import read_manifest  # noqa: PLC0415
    from runtime.errors import ArtifactError  # noqa: PLC0415
    from runtime.messages import Tier  # noqa: PLC0415

    for record in records:
        try:
            manifest = read_manifest(bundled_model(Tier(record.tier)))
        except (ArtifactError, ValueError):
            # Without them labels are told by number.
            continue
        if (manifest.name, manifest.version) == (record.model, record.model_version):
            return manifest.labels
    return ()
