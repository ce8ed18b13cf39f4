"""``tierwise audit reconcile``: whether the counters and logs of all tiers add up."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.output import say, say_json, say_table

if TYPE_CHECKING:
    from runtime.core.reconcile import Counts, Finding

TIMEOUT_S = 5.0
DOES_NOT_ADD_UP = 1
# Counters that a tier has whatever it does; without them it is not one of ours.
_KINDS = ("edge", "regional", "cloud")


def run(arguments: argparse.Namespace) -> int:
    """Reads, compares, tells; 1 when something does not add up."""
    # Here, so that `tierwise --help` stays quick.
    from runtime.core.reconcile import reconcile  # noqa: PLC0415
    from runtime.errors import StartError  # noqa: PLC0415

    if not arguments.url and arguments.state is None:
        raise StartError("nothing to compare: give --url of every tier, or --state with their logs")
    findings = reconcile(asyncio.run(_counts_of(arguments.url))) if arguments.url else []
    if arguments.state is not None:
        findings += _of_logs(arguments.state)
    is_good = all(finding.adds_up for finding in findings)
    if arguments.json:
        say_json({"adds_up": is_good, "findings": [_plain(finding) for finding in findings]})
    else:
        say_table(
            ("WHERE", "RULE", "FOUND", "FROM", "TO", ""),
            [
                (one.where, one.rule, f"{one.found}", f"{one.low}", f"{one.high}",
                 "" if one.adds_up else "DOES NOT ADD UP")
                for one in findings
            ],
            right=4,
        )  # fmt: skip
        say("everything adds up" if is_good else "something does not add up")
    return 0 if is_good else DOES_NOT_ADD_UP


def _plain(finding: Finding) -> dict[str, object]:
    return {
        "where": finding.where,
        "rule": finding.rule,
        "found": finding.found,
        "from": finding.low,
        "to": finding.high,
        "adds_up": finding.adds_up,
    }


async def _counts_of(urls: Sequence[str]) -> list[Counts]:
    """The counters of all tiers, read at about the same time."""
    texts = await texts_of(urls)
    return [counts_in(text, url) for url, text in zip(urls, texts, strict=True)]


async def texts_of(urls: Sequence[str]) -> list[str]:
    """The metrics of all tiers, read at about the same time.

    Raises:
        StartError: one cannot be read, or is no tier.
    """
    import aiohttp  # noqa: PLC0415

    from runtime.errors import StartError  # noqa: PLC0415

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def read(url: str) -> str:
            try:
                async with session.get(f"{url.rstrip('/')}/metrics") as response:
                    response.raise_for_status()
                    return await response.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise StartError(
                    f"{url} cannot be read: {error or type(error).__name__}"
                ) from error

        return await asyncio.gather(*(read(url) for url in urls))


def counts_in(text: str, where: str) -> Counts:
    """The counters in Prometheus' text.

    Raises:
        StartError: it is not that of a tier.
    """
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    from runtime.core.reconcile import Counts  # noqa: PLC0415
    from runtime.errors import StartError  # noqa: PLC0415
    from runtime.messages import Tier  # noqa: PLC0415

    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    names = {sample.name for sample in samples}
    kind = next((one for one in _KINDS if f"tierwise_{one}_received_requests_total" in names), None)
    if kind is None:
        raise StartError(f"{where} has no counters of a tier; is it one, of this version?")

    def total(name: str, **labels: str) -> int:
        return round(
            sum(
                sample.value
                for sample in samples
                if sample.name == f"tierwise_{kind}_{name}"
                and labels.items() <= sample.labels.items()
            )
        )

    results = {
        sample.labels["result"]: round(sample.value)
        for sample in samples
        if sample.name == f"tierwise_{kind}_escalations_total"
    }
    return Counts(
        tier=Tier(next(iter(_tier_of(samples)), kind)),
        where=where,
        received=total("received_requests_total"),
        answered=total("answers_total"),
        refused=total("refused_requests_total"),
        duplicates=total("ignored_messages_total", kind="duplicate"),
        pending=total("pending_requests"),
        sent=total("sent_requests_total"),
        hedges=total("hedges_total"),
        escalations=results,
        cancelled=total("refused_requests_total", code="cancelled"),
        late=total("late_requests_total"),
    )


def _tier_of(samples: Iterable[object]) -> Iterable[str]:
    for sample in samples:
        labels = getattr(sample, "labels", {})
        if getattr(sample, "name", "").endswith("_tier_info"):
            yield labels["tier"]


def _of_logs(state: Path) -> list[Finding]:
    """Of the requests that a tier says a tier above answered, how many that tier knows of.

    Raises:
        StartError: there is no decision log.
    """
    from runtime.adapters.decision_query import logs_in  # noqa: PLC0415
    from runtime.core.reconcile import Finding  # noqa: PLC0415
    from runtime.messages import Tier  # noqa: PLC0415

    paths = logs_in(state)
    ended: dict[str, set[str]] = {}
    answered_above: dict[tuple[str, str], set[str]] = {}
    twice = 0
    for path in paths:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as log:
            for tier, request_id, answered_by, count in log.execute(
                "SELECT tier, request_id, max(answered_by), count(*) FROM decisions "
                "GROUP BY tier, request_id, wall_s"
            ):
                ended.setdefault(tier, set()).add(request_id)
                twice += count - 1
                if answered_by and answered_by != tier:
                    answered_above.setdefault((tier, answered_by), set()).add(request_id)
    findings = [Finding("decision logs", "decisions that are there twice", twice, 0, 0)]
    for (tier, above), ids in sorted(answered_above.items()):
        if Tier(above).height < Tier(tier).height or above not in ended:
            # Whose log is not here cannot be compared.
            continue
        known = len(ids & ended[above])
        findings.append(
            Finding(
                f"{tier} to {above}", f"answers of {above} that its log has", known, len(ids),
                len(ids),
            )
        )  # fmt: skip
    return findings
