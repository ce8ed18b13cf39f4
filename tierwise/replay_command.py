"""``tierwise policy replay``: what another policy would have done on recorded traffic."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.errors import PolicyError
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.policy_commands import bundled
from tierwise.rules_commands import note_rules_left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_zoo.policies.replay import Replay
    from runtime.adapters.replay_log import RecordedRequest, Recordings
    from runtime.messages import Tier
    from runtime.policy import Interval, Policy

EXIT_REFUSED = 1


def run_replay(arguments: argparse.Namespace) -> int:
    """Estimates what a policy would have done; code 1 when the log has no support for it."""
    from model_zoo.policies.replay import replay  # noqa: PLC0415 - keeps --help quick

    policy = _policy(arguments.policy, arguments.base)
    note_rules_left_out(policy)
    log = _recorded(arguments.state, arguments.since, _top(policy))
    whole = replay(policy, log.requests)
    groups = {
        key: replay(policy, members)
        for key, members in _grouped(log.requests, arguments.by, policy).items()
    }
    if arguments.json:
        say_json(
            {
                "policy": policy.name,
                "left_out": log.num_left_out,
                "failed_audits": log.num_failed_audits,
                "by_rule": log.num_by_rule,
                **_as_json(whole),
                "groups": {key: _as_json(one) for key, one in groups.items()},
            }
        )
    else:
        _tell(policy, whole, groups, arguments.by)
        if log.num_left_out:
            note(f"{log.num_left_out} requests did not go as their policy meant and are left out")
        if log.num_by_rule:
            note(f"{log.num_by_rule} requests were decided by rules and are left out")
        if log.num_failed_audits:
            note(f"{log.num_failed_audits} audits did not come back")
    return EXIT_REFUSED if whole.refusal else 0


def _policy(path: Path, base: Path | None) -> Policy:
    from runtime.adapters.policy_file import read_policy  # noqa: PLC0415

    if path.suffix != ".toml":
        return read_policy(path).policy
    from model_zoo.policies.by_hand import policy_by_hand, read_thresholds  # noqa: PLC0415

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} cannot be read: {error}") from error
    return policy_by_hand(read_policy(base or bundled()).policy, read_thresholds(text, str(path)))


def _top(policy: Policy) -> Tier:
    from runtime.messages import Tier  # noqa: PLC0415

    try:
        return Tier(policy.tiers[-1])
    except ValueError:
        raise PolicyError(
            f"{policy.name} is for {' > '.join(policy.tiers)}; logs know {', '.join(Tier)}"
        ) from None


def _recorded(state: Path, since: float | None, top: Tier) -> Recordings:
    from runtime.adapters.decision_query import logs_in  # noqa: PLC0415
    from runtime.adapters.replay_log import read_recorded  # noqa: PLC0415

    paths = logs_in(state)
    since_s = 0.0 if since is None else time.time() - since
    return read_recorded(paths, since_s=since_s, top=top)


def _grouped(
    records: Sequence[RecordedRequest], by: str | None, policy: Policy
) -> dict[str, list[RecordedRequest]]:
    lowest = policy.tiers[0]
    keys: dict[str, Callable[[RecordedRequest], str]] = {
        "site": lambda record: record.site,
        "label": lambda record: (
            policy.labels[record.seen[lowest].label]
            if lowest in record.seen and record.seen[lowest].label < len(policy.labels)
            else "-"
        ),
    }
    groups: dict[str, list[RecordedRequest]] = defaultdict(list)
    for record in records if by else ():
        groups[keys[by or ""](record)].append(record)
    return dict(sorted(groups.items()))


def _as_json(result: Replay) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(dataclasses.asdict(result))
    if result.refusal:
        # What is refused is not said in another place.
        for name in ("answered_by", "cost", "agreement"):
            plain[name] = None
    return plain


def _tell(policy: Policy, whole: Replay, groups: dict[str, Replay], by: str | None) -> None:
    say(
        f"{policy.name} on {whole.num_requests} recorded requests; {whole.inferred:.1%} of them "
        f"needed audits to speak for them, {whole.num_audits} did"
    )
    head = (*(t.upper() for t in policy.tiers), "COST", "AS THE TOP TIER")
    rows = [("all", *_cells(policy, whole))]
    rows += [(key, *_cells(policy, one)) for key, one in groups.items()]
    say_table(((by or "").upper() or "REQUESTS", *head), rows, right=len(head))
    if whole.refusal:
        note(f"no promise: {whole.refusal}")


def _cells(policy: Policy, result: Replay) -> list[str]:
    if result.refusal:
        return ["-"] * (len(policy.tiers) + 2)
    return [
        *(_percent(result.answered_by[tier]) for tier in policy.tiers),
        f"{result.cost.mean:.3f} ±{_half(result.cost):.3f}",
        _percent(result.agreement),
    ]


def _percent(interval: Interval) -> str:
    return f"{interval.mean:.1%} ±{_half(interval):.1%}"


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2
