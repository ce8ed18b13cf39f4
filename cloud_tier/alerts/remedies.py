"""What to do about an alert: the first thing to look at, in one sentence. Pure."""

from __future__ import annotations

from runtime.core.alerts import Condition

# By kind and detail, or by kind alone.
REMEDIES = {
    "breaker_open": "see whether the tier above is up: `tierwise health --url URL`, and "
    "`tierwise doctor` where the alert comes from",
    "outbox_full": "see what waits there and whether its link is up: `tierwise outbox list`",
    "drift": "compare what is measured with what was promised: `tierwise metrics agreement --by "
    "site`; if traffic stays as it is, label some of it and fit the policy again: `tierwise policy "
    "fit`",
    "guarantee_suspended": "it ends by itself when traffic is as before; else label some of it and "
    "fit the policy again: `tierwise policy fit`",
    "decisions_missing": "see whether the disk of its state folder is full or broken",
    "decisions_missing/gap": "see what is missing: `tierwise metrics fleet`; then what waits on "
    "the device: `tierwise outbox list`",
    "device_silent": "see whether it has power and a network, then its gateway and broker; gone "
    "for good: `tierwise fleet retire`",
    "retired_speaks": "have it watched again: `tierwise fleet restore`; or see who uses its name",
    "review_late": "label what waits: `tierwise review label`, or its page of the dashboard",
    "rollout_breach": "see what the gate found: `tierwise rollout status`",
    "rollout_asks": "see how it stands: `tierwise rollout status`; then `tierwise rollout promote` "
    "or `tierwise rollout rollback`",
}


def remedy(condition: Condition) -> str:
    """What whoever is told does first; empty for a kind that is not known, such as a test."""
    exact = REMEDIES.get(f"{condition.kind}/{condition.detail}")
    return exact or REMEDIES.get(condition.kind, "")
