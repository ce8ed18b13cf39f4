"""How a tier tells the next one what to follow: ``route``, ``gear`` and ``earlier`` as text.

All three come from whoever may publish, so they are bounded and checked before anything is done
with them; what is malformed is refused as a whole.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from runtime import topics
from runtime.errors import MalformedBodyError
from runtime.messages import Tier

# Twice what three tiers can fill; nothing longer is even looked at.
MAX_CHARACTERS = 128
MAX_LABEL = 2**31
# What stands for the label of a batch.
NO_LABEL = "*"
# A gear's name, and which of its safer steps.
_GEAR = re.compile(r"[0-9a-f]{12}/[A-Za-z0-9][A-Za-z0-9._-]{0,127}(\.safer-[0-9]{1,2})?")


def route_text(route: Sequence[Tier]) -> str:
    """A route as a property; empty for none."""
    return ",".join(route)


def parse_route(text: str) -> tuple[Tier, ...]:
    """The tiers of a ``route`` property, upwards; empty text is no route.

    Raises:
        MalformedBodyError: an unknown tier, one that is there twice, or another order.
    """
    return _tiers(text.split(","), topics.ROUTE) if _is_stated(text, topics.ROUTE) else ()


def parse_gear(text: str) -> str:
    """A ``gear`` property: 12 characters of the policy's digest, ``/``, and the gear's name.

    Raises:
        MalformedBodyError: it has another form.
    """
    if text and not _GEAR.fullmatch(text):
        raise MalformedBodyError(f"{topics.GEAR} is DIGEST/NAME; not {text[:40]!r}")
    return text


def earlier_text(earlier: Sequence[tuple[Tier, int | None]]) -> str:
    """Who has answered what as a property, such as ``edge=7``."""
    return ",".join(
        f"{tier.value}={NO_LABEL if label is None else label}" for tier, label in earlier
    )


def parse_earlier(text: str) -> tuple[tuple[Tier, int | None], ...]:
    """Who below has answered what, lowest first; None stands for the labels of a batch.

    Raises:
        MalformedBodyError: an unknown tier, one that is there twice, another order, or no label.
    """
    if not _is_stated(text, topics.EARLIER):
        return ()
    parts = [part.partition("=") for part in text.split(",")]
    tiers = _tiers([name for name, _, _ in parts], topics.EARLIER)
    return tuple(zip(tiers, (_label(label) for _, _, label in parts), strict=True))


def _is_stated(text: str, name: str) -> bool:
    if len(text) > MAX_CHARACTERS:
        raise MalformedBodyError(f"{name} is over {MAX_CHARACTERS} characters")
    return bool(text)


def _label(text: str) -> int | None:
    if text == NO_LABEL:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < MAX_LABEL):
        raise MalformedBodyError(f"{topics.EARLIER} has no label: {text[:40]!r}")
    return int(text)


def _tiers(names: Sequence[str], what: str) -> tuple[Tier, ...]:
    try:
        tiers = tuple(map(Tier, names))
    except ValueError:
        known = ", ".join(Tier)
        raise MalformedBodyError(f"{what} names tiers: {known}; not {names!r:.80}") from None
    if any(left.height >= right.height for left, right in itertools.pairwise(tiers)):
        raise MalformedBodyError(f"{what} names tiers upwards, each once")
    return tiers
