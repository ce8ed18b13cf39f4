"""Rules as a file has them."""

from __future__ import annotations

from typing import Any

import msgspec

from runtime.policy_rules import Rule


def rule(*when: dict[str, Any], name: str = "r", **does: str) -> Rule:
    """A rule; unless told otherwise it asks the cloud."""
    fields = {"name": name, "when": list(when), **(does or {"ask": "cloud"})}
    return msgspec.convert(fields, Rule)


def said(key: str, op: str, value: object) -> dict[str, Any]:
    """A condition on a context."""
    return {"context": key, "op": op, "value": value}


def seen(statistic: str, op: str, value: object, name: str = "x") -> dict[str, Any]:
    """A condition on an input."""
    return {"input": name, "statistic": statistic, "op": op, "value": value}


NIGHT = said("shift", "==", "night")
DARK = seen("max", "<", 0.1)
