"""What a device or a gateway tells of itself for alerts: all that is wrong with it now.

The body of an outbox item of the kind ``alert``, as JSON. It is the whole state and not a change of
it, so that one that was lost is made good by the next. Wire rule: fields are only added, with
defaults; a sign that is not known is shown as it is.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.errors import MalformedBodyError

MAX_SIGNS = 32
_Text = Annotated[str, Meta(max_length=200)]


class Sign(msgspec.Struct, frozen=True):
    """Something that is wrong, such as ``breaker_open``, and words about it for people."""

    kind: Annotated[str, Meta(pattern=r"^[a-z][a-z_]{0,31}\Z")]
    summary: _Text = ""


class AlertFacts(msgspec.Struct, frozen=True):
    """All signs of one process; none where all is well again."""

    signs: Annotated[tuple[Sign, ...], Meta(max_length=MAX_SIGNS)] = ()


_decoder = msgspec.json.Decoder(AlertFacts)


def decode_facts(body: bytes) -> AlertFacts:
    """The facts of an item.

    Raises:
        MalformedBodyError: it has none.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"no facts for alerts: {str(error)[:200]}") from None
