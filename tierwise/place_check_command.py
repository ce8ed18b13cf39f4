"""What ``tierwise place check`` does."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runtime.adapters.decision_query import logs_in, query_entries
from runtime.core.placement.checking import (
    Compared,
    bucket_quantile,
    compare_load,
    compare_shares,
    measured_quantile,
)
from runtime.errors import SettingsError, StartError
from tierwise.audit_commands import texts_of
from tierwise.cli.output import say, say_json, say_table

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

MAX_BYTES = 16 << 20
_OUTSIDE = 1
_MS = 1000.0
_VERDICTS = {True: "yes", False: "NO", None: "not known"}


class _Quantile(msgspec.Struct, frozen=True):
    share: float
    ms: float | None
    low_ms: float | None
    high_ms: float | None


class _Part(msgspec.Struct, frozen=True):
    answered_share: float


class _Recommended(msgspec.Struct, frozen=True):
    name: str
    parts: tuple[_Part, ...]
    latency: tuple[_Quantile, ...]


class PlacedFile(msgspec.Struct, frozen=True):
    """What is needed of the JSON of ``tierwise place``."""

    tiers: tuple[str, ...]
    recommended: _Recommended
    mean_requests_per_s: float
    peak_requests_per_s: float
    least_requests_per_s: float
    num_examples: int


def run_check(arguments: argparse.Namespace) -> int:
    """Compares and tells; 1 where a figure is outside of its interval."""
    placed = read_placed(arguments.placed)
    found = _of_metrics(placed, arguments.url) if arguments.url else _of_logs(placed, arguments)
    is_good = all(one.is_within is not False for one in found)
    if arguments.json:
        say_json(
            {
                "placement": placed.recommended.name,
                "is_as_predicted": is_good,
                "figures": [msgspec.to_builtins(one) | {"is_within": one.is_within}
                            for one in found],
            }
        )  # fmt: skip
    else:
        say(f"predicted: {placed.recommended.name}")
        say_table(
            ("FIGURE", "PREDICTED", "FROM", "TO", "MEASURED", "FROM", "TO", "WITHIN"),
            [
                (
                    one.name,
                    *map(_number, (one.predicted, one.predicted_low, one.predicted_high)),
                    *map(_number, (one.measured, one.measured_low, one.measured_high)),
                    _VERDICTS[one.is_within],
                )
                for one in found
            ],
            right=7,
        )
    return 0 if is_good else _OUTSIDE


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def read_placed(path: Path) -> PlacedFile:
    """A placement that was kept.

    Raises:
        SettingsError: it cannot be read, or is not what ``tierwise place --json`` prints.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_BYTES + 1)
        placed = msgspec.json.decode(contents, type=PlacedFile)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is not what `tierwise place CASE.toml --json` prints: {error}"
        ) from error
    if len(placed.tiers) != len(placed.recommended.parts):
        raise SettingsError(f"{path}: {len(placed.tiers)} tiers, but another number of parts")
    return placed


def _shares(placed: PlacedFile) -> dict[str, float]:
    parts = placed.recommended.parts
    return {tier: part.answered_share for tier, part in zip(placed.tiers, parts, strict=True)}


def _latency(one: _Quantile, measured: tuple[float, float, float] | None) -> Compared:
    infinite = float("inf")
    ms, low, high = (infinite if value is None else value for value in
                     (one.ms, one.low_ms, one.high_ms))  # fmt: skip
    return Compared(f"p{one.share * 100:g} latency ms", ms, low, high, *(measured or ()))


def _of_logs(placed: PlacedFile, arguments: argparse.Namespace) -> list[Compared]:
    since_s = 0.0 if arguments.since is None else time.time() - arguments.since
    entries = query_entries(logs_in(arguments.state), since_s=since_s)
    if not entries:
        raise StartError(f"no request is in the decision logs in {arguments.state}: ask first")
    ordered = sorted(one.latency_ms for one in entries)
    return [
        *compare_shares(
            _shares(placed), Counter(one.answered_by for one in entries), placed.num_examples
        ),
        *(_latency(one, measured_quantile(ordered, one.share))
          for one in placed.recommended.latency),
        compare_load(
            (placed.mean_requests_per_s, placed.least_requests_per_s, placed.peak_requests_per_s),
            len(entries) - 1,
            entries[-1].wall_s - entries[0].wall_s,
        ),
    ]  # fmt: skip


def _of_metrics(placed: PlacedFile, urls: Sequence[str]) -> list[Compared]:
    """Counters since the start of each agent; they do not say since when."""
    counts: Counter[str] = Counter()
    buckets: dict[float, float] = {}
    for url, text in zip(urls, asyncio.run(texts_of(urls)), strict=True):
        samples = _samples(text, url)
        for sample in samples:
            if sample.name == "tierwise_edge_answers_total":
                counts[sample.labels["answered_by"]] += round(sample.value)
            elif sample.name == "tierwise_edge_latency_seconds_bucket":
                bound_ms = float(sample.labels["le"]) * _MS
                buckets[bound_ms] = buckets.get(bound_ms, 0.0) + sample.value
    if not counts.total():
        raise StartError(f"no request was answered at {', '.join(urls)}: ask first")
    cumulative = sorted(buckets.items())
    return [
        *compare_shares(_shares(placed), counts, placed.num_examples),
        *(
            _latency(one, bucket_quantile(cumulative, one.share))
            for one in placed.recommended.latency
        ),
        compare_load(
            (placed.mean_requests_per_s, placed.least_requests_per_s, placed.peak_requests_per_s),
            0,
            0.0,
        ),
    ]


def _samples(text: str, url: str) -> list[Sample]:
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    try:
        found = [one for family in text_string_to_metric_families(text) for one in family.samples]
    except ValueError as error:
        raise StartError(f"{url} has no metrics that can be read: {error}") from error
    if not any(one.name == "tierwise_edge_received_requests_total" for one in found):
        raise StartError(f"{url} has no counters of an agent; is it one, of this version?")
    return found
