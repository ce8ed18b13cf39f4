"""What ``tierwise policy rules`` does, and how other commands read and show rules."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runtime.errors import PolicyError
from tierwise.cli.output import note, say, say_json, say_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.policy import Policy
    from runtime.policy_rules import Rule, RulesFile


def run_rules(arguments: argparse.Namespace) -> int:
    """Shows the rules of a policy, or writes a policy that has others."""
    from runtime.adapters.artifacts import write_artifact  # noqa: PLC0415 - keeps --help quick
    from runtime.adapters.policy_file import read_policy  # noqa: PLC0415
    from runtime.policy import digest_of, encode_policy  # noqa: PLC0415
    from runtime.policy_rules import RulesFile  # noqa: PLC0415

    if (arguments.set is None) != (arguments.output is None):
        raise PolicyError("--set and --output go together: the policy itself is not changed")
    known = read_policy(arguments.policy)
    policy, contents = known.policy, b""
    if arguments.set is not None:
        policy = with_rules(policy, read_rules_file(arguments.set), str(arguments.set))
        contents = encode_policy(policy)
        write_artifact(arguments.output, contents)
    digest = digest_of(contents) if contents else known.digest
    if arguments.json:
        ruled = RulesFile(policy.rules, policy.fallback, policy.fallback_rules)
        say_json({"policy": policy.name, "digest": digest, **msgspec.to_builtins(ruled)})
        return 0
    say_rules(policy)
    if not policy.rules:
        say(f"{policy.name} has no rules")
    if contents:
        say(f"written: {arguments.output}")
    return 0


def read_rules_file(path: Path) -> RulesFile:
    """The rules in a TOML file.

    Raises:
        PolicyError: it cannot be read, or has something else than rules.
    """
    from runtime.policy_rules import read_rules  # noqa: PLC0415

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} cannot be read: {error}") from error
    return read_rules(text, str(path))


def check_for(
    ruled: RulesFile, tiers: Sequence[str], labels: Sequence[str], source: object
) -> None:
    """Refuses rules that are for other tiers or labels.

    Raises:
        PolicyError: they are.
    """
    from runtime.policy_rules import check_fallback, check_rules  # noqa: PLC0415

    try:
        check_rules(ruled.rules, tiers, labels)
        check_fallback(ruled.fallback, ruled.fallback_rules, tiers, labels)
    except ValueError as error:
        raise PolicyError(f"{source}: {error}") from error


def with_rules(policy: Policy, ruled: RulesFile, source: object) -> Policy:
    """The policy with these rules and this fallback order instead of its own.

    Raises:
        PolicyError: they are for another policy.
    """
    check_for(ruled, policy.tiers, policy.labels, source)
    return msgspec.structs.replace(policy, **msgspec.structs.asdict(ruled))


def note_rules_left_out(policy: Policy) -> None:
    """Says that an estimate is of what the rules leave over."""
    if policy.rules:
        note(
            f"the {len(policy.rules)} rules of {policy.name} play no part here: neither logs nor "
            "predictions hold the inputs and contexts that they look at"
        )


def say_rules(policy: Policy) -> None:
    """The rules as tables, in the order in which they are tried; nothing where there are none."""
    _say_table(policy.rules, "RULE")
    if policy.fallback:
        say(f"where no answer stands: {', then '.join(policy.fallback)}")
    _say_table(policy.fallback_rules, "FALLBACK RULE")


def _say_table(rules: Sequence[Rule], title: str) -> None:
    if rules:
        say_table(
            (title, "WHEN", "THEN"),
            [(rule.name, " and ".join(map(str, rule.when)), rule.does) for rule in rules],
        )
