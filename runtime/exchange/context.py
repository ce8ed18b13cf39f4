"""What a caller says about a request beside its inputs, for the rules of a policy to look at.

It is bounded, and it stays where the request came in: no tier passes it on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from runtime.codec import Parameters
from runtime.errors import MalformedBodyError
from runtime.messages import ContextValue, InferenceRequest
from runtime.policy_rules import BUILT_IN

PREFIX = "context."
MAX_ENTRIES = 16
MAX_KEY_CHARACTERS = 64
MAX_TEXT_CHARACTERS = 128


def check_context(context: Mapping[str, object]) -> dict[str, ContextValue]:
    """The context, when it is within its bounds; whole numbers become floats.

    Raises:
        MalformedBodyError: too many entries, a key or text too long, another kind of value, or a
            key of those that are built in.
    """
    if len(context) > MAX_ENTRIES:
        raise MalformedBodyError(f"a context has at most {MAX_ENTRIES} entries, not {len(context)}")
    return {_checked_key(key): _checked_value(key, value) for key, value in context.items()}


def parse_context(parameters: Parameters) -> dict[str, ContextValue]:
    """The context in the parameters of a request: those whose names begin with ``context.``.

    Raises:
        MalformedBodyError: as ``check_context`` has it.
    """
    found = {
        name.removeprefix(PREFIX): value
        for name, value in parameters.items()
        if name.startswith(PREFIX)
    }
    return check_context(found) if found else {}


def context_of(request: InferenceRequest) -> dict[str, ContextValue]:
    """What rules look at: the caller's context, and what is known of every request."""
    return {
        **request.context,
        f"{BUILT_IN}priority": float(request.priority),
        f"{BUILT_IN}residency": request.residency.value,
        f"{BUILT_IN}budget_ms": request.remaining_ms,
    }


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isprintable():
        raise MalformedBodyError(
            f"a context key has 1 to {MAX_KEY_CHARACTERS} printable characters"
        )
    if key.startswith(BUILT_IN):
        raise MalformedBodyError(f"the context key {key!r} is not the caller's to set")
    return key


def _checked_value(key: object, value: object) -> ContextValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT_CHARACTERS:
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise MalformedBodyError(
        f"the context {str(key)[:MAX_KEY_CHARACTERS]!r} is a finite number, true or false, or at "
        f"most {MAX_TEXT_CHARACTERS} characters of text"
    )
