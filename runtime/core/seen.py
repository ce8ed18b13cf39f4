"""What the tiers that worked on a request answered, as one line of text: what replay goes by.

``edge=7:0.98123;regional=3:0.712`` says that the device chose label 7 with a score of 0.98123 and
the region label 3. A score is the number that the tier's table looks up, written so that reading it
gives the same number again. Tiers above speak over the network: what is no label, no finite number
or out of order is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runtime.messages import Hop, Tier

# As for the labels that travel upwards.
MAX_LABEL = 2**31


class Seen(NamedTuple):
    """An answer of one tier to a single example: its label and its score."""

    label: int
    score: float


def is_seen(label: int | None, score: float | None) -> bool:
    """Whether a label and a score are an answer to a single example."""
    return (
        label is not None and score is not None and 0 <= label < MAX_LABEL and math.isfinite(score)
    )


def seen_in(hops: Iterable[Hop], *, above: Tier) -> dict[str, Seen]:
    """The answers in the provenance of a reply, of tiers above ``above`` and upwards."""
    found: dict[str, Seen] = {}
    height = above.height
    for hop in hops:
        score = hop.confidence if hop.score is None else hop.score
        # An average is not what the tier answers by itself.
        if hop.averaged:
            continue
        if hop.tier.height > height and is_seen(hop.label, score):
            found[hop.tier.value] = Seen(hop.label or 0, float(score or 0.0))
            height = hop.tier.height
    return found


def seen_text(seen: Mapping[str, Seen]) -> str:
    """The line; empty for no answers."""
    return ";".join(f"{tier}={label}:{float(score)!r}" for tier, (label, score) in seen.items())


def parse_seen(text: str) -> dict[str, Seen]:
    """The answers in a line that ``seen_text`` wrote, in its order.

    Raises:
        ValueError: it did not write this.
    """
    found: dict[str, Seen] = {}
    for part in text.split(";") if text else ():
        tier, _, answer = part.partition("=")
        label, _, score = answer.partition(":")
        try:
            one = Seen(int(label), float(score))
            name = Tier(tier).value
        except ValueError:
            raise ValueError(f"no answer of a tier: {part[:80]!r}") from None
        if not is_seen(*one):
            raise ValueError(f"neither a label nor a score: {part[:80]!r}")
        found[name] = one
    return found
