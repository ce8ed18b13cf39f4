"""What a rule of the policy, or an override, decided, in plain words, and what had to differ."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.core.overrides import PREFIX
from runtime.core.reasons import plain
from runtime.messages import Reason

MAX_TOLD = 8


def chose_by_rule(name: str, label: int | None, rule: str) -> str:
    """That a rule gave the answer, for the sentence about who chose what."""
    chosen = name or ("an answer" if label is None else f"label {label}")
    if rule.startswith(PREFIX):
        return f"chose {chosen} by the override {_ids(rule)}, without a model."
    return f"chose {chosen} by the rule {plain(rule)}, without a model."


def ruled(rule: str, reason: Reason | None, *, above: str, asked: bool, has_own: bool) -> str:
    """The sentence about a rule.

    Args:
        rule: its name.
        reason: why the tier did what it did; another one than ``rule`` says what was in the way.
        above: who was or would have been asked, in a sentence.
        asked: whether they were.
        has_own: whether the tier's own model answered.
    """
    if rule.startswith(PREFIX):
        subject = f"The override {_ids(rule)} of an operator"
        if reason is not Reason.RULE:
            return f"{subject} has changed what is answered."
    else:
        subject = f"The rule {plain(rule)} of the policy"
    if reason is Reason.RULE and not asked:
        if has_own:
            return f"{subject} has it answer such requests itself, however sure it is."
        return f"{subject} gives the answer."
    sends = f"{subject} sends such requests to {above}"
    return f"{sends}, so it asked {above}." if asked and reason is Reason.RULE else f"{sends}."


def _ids(rule: str) -> str:
    return plain(rule.replace(PREFIX, "").replace(",", ", "))


def without_rule(when: Sequence[str]) -> str:
    """What would have had to differ; empty where the conditions are not known."""
    if not when:
        return ""
    held = " and ".join(map(plain, when[:MAX_TOLD]))
    more = f" (and {len(when) - MAX_TOLD} more)" if len(when) > MAX_TOLD else ""
    if len(when) == 1:
        return f"The rule would not have decided without: {held}."
    return f"The rule would not have decided without any one of: {held}{more}."
