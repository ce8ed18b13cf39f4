"""What became of one request, told tier by tier: the explanations in order, and the ending."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runtime.core import reasons
from runtime.core.explain import Explanation, label_name
from runtime.messages import Guarantee, Outcome, Tier


class Ending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request ended, as the lowest tier that is known of saw it."""

    request_id: str
    outcome: str
    reason: str
    guarantee: str
    answered_by: str = ""
    label: int | None = None
    confidence: float | None = None
    latency_ms: float | None = None


class Story(Ending, frozen=True, kw_only=True, omit_defaults=True):
    """An ending with how it came about: ``tiers`` in the order in which they worked.

    ``ending`` and ``notes`` are sentences; a note says what to know beside the story.
    """

    label_name: str = ""
    tiers: tuple[Explanation, ...]
    ending: tuple[str, ...]
    notes: tuple[str, ...] = ()


def tell(
    ending: Ending,
    tiers: Sequence[Explanation],
    *,
    labels: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Story:
    """The story of a request."""
    name = reasons.plain(label_name(ending.label, labels))
    sentences = (_outcome(ending, name), _why(ending), _guarantee(ending))
    return Story(
        **msgspec.structs.asdict(ending),
        label_name=name,
        tiers=tuple(tiers),
        ending=tuple(filter(None, sentences)),
        notes=tuple(notes),
    )


def _outcome(ending: Ending, name: str) -> str:
    try:
        outcome = reasons.OUTCOMES[Outcome(ending.outcome)]
    except ValueError:
        outcome = reasons.plain(ending.outcome)
    text = f"In the end: {outcome}"
    if ending.answered_by:
        label = name or ("" if ending.label is None else f"label {ending.label}")
        text = f"In the end: {f'{label}, ' if label else ''}{outcome}"
        text += f" by {reasons.named(ending.answered_by)}"
    if ending.latency_ms is not None:
        text += f", after {ending.latency_ms:.1f} ms"
    if ending.confidence is not None:
        text += f", confidence {ending.confidence:.3f}"
    return f"{text}."


def _why(ending: Ending) -> str:
    reason = reasons.reason_of(ending.reason)
    if reason is None:
        return f"The reason, {reasons.plain(ending.reason)!r}, is not known to this version."
    return reasons.ENDED[reason]


def _guarantee(ending: Ending) -> str:
    try:
        guarantee = Guarantee(ending.guarantee)
    except ValueError:
        return f"Guarantee {reasons.plain(ending.guarantee)!r}: not known to this version."
    return f"Guarantee {guarantee.value}: {reasons.GUARANTEES[guarantee]}"


def height(tier: str) -> int:
    """Where a tier stands; one that this version does not know stands above the others."""
    try:
        return Tier(tier).height
    except ValueError:
        return len(Tier)


def paragraphs(story: Story) -> list[str]:
    """The story as text: lines, with an empty one between paragraphs."""
    lines = [f"request {reasons.plain(story.request_id)}", ""]
    for tier in story.tiers:
        lines.append(" ".join(tier.words))
        lines.extend(f"  {sentence}" for sentence in tier.otherwise)
        lines.append("")
    lines.extend(story.ending)
    lines.extend(story.notes)
    # A story may have come over the network, words and all.
    return [reasons.printable(line) for line in lines]
