"""How a tier tells the next one what to follow: ``route``, ``gear``, ``earlier`` and ``beliefs``.

They are text and come from whoever may publish, so they are bounded and checked before anything is
done with them; what is malformed is refused as a whole.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Sequence

import numpy as np

from runtime import topics
from runtime.core.beliefs import BYTES_PER_CLASS, is_belief
from runtime.errors import MalformedBodyError
from runtime.messages import Tier

# More than six tiers can fill; nothing longer is even looked at.
MAX_CHARACTERS = 160
# Five tiers of 64 classes, with their names.
MAX_BELIEFS_CHARACTERS = 1024
MAX_LABEL = 2**31
# What stands for the label of a batch.
NO_LABEL = "*"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
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


def parse_digest(text: str) -> str:
    """A ``forwarded-by`` property: the digest of a model, or nothing.

    Raises:
        MalformedBodyError: it has another form.
    """
    if text and not _DIGEST.fullmatch(text):
        raise MalformedBodyError(f"{topics.FORWARDED_BY} is a sha256; not {text[:40]!r}")
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


def beliefs_text(beliefs: Sequence[tuple[Tier, bytes]]) -> str:
    """What tiers hold likely as a property, such as ``edge=AAAA0v8t``."""
    return ",".join(
        f"{tier.value}={base64.urlsafe_b64encode(shares).decode().rstrip('=')}"
        for tier, shares in beliefs
    )


def parse_beliefs(text: str) -> tuple[tuple[Tier, bytes], ...]:
    """What each tier below holds likely, lowest first.

    Raises:
        MalformedBodyError: as for ``parse_earlier``, or shares that are no probabilities.
    """
    if not _is_stated(text, topics.BELIEFS, MAX_BELIEFS_CHARACTERS):
        return ()
    parts = [part.partition("=") for part in text.split(",")]
    tiers = _tiers([name for name, _, _ in parts], topics.BELIEFS)
    return tuple(zip(tiers, (_shares(shares) for _, _, shares in parts), strict=True))


def _shares(text: str) -> bytes:
    # Four characters are three bytes, so of one left over nothing can be made.
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise MalformedBodyError(f"{topics.BELIEFS} are base64url; not {text[:40]!r}")
    shares = base64.urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}")
    if len(shares) % BYTES_PER_CLASS or not is_belief(np.frombuffer(shares, "<u2")):
        raise MalformedBodyError(f"{topics.BELIEFS} has no probabilities: {text[:40]!r}")
    return shares


def _is_stated(text: str, name: str, max_characters: int = MAX_CHARACTERS) -> bool:
    if len(text) > max_characters:
        raise MalformedBodyError(f"{name} is over {max_characters} characters")
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
