"""What operators have said of a region, as it is retained: stops and overrides."""

from __future__ import annotations

import enum
import math
from typing import Annotated

import msgspec


class StopScope(enum.StrEnum):
    """What a stop is about, the widest first; all but ``all`` name a target."""

    ALL = "all"
    REGION = "region"
    MODEL = "model"
    DEVICE = "device"


class StopMode(enum.StrEnum):
    """``fallback``: nothing climbs, local models answer alone. ``stop``: nobody answers."""

    FALLBACK = "fallback"
    STOP = "stop"


_ShortText = Annotated[str, msgspec.Meta(max_length=128)]
_Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Stop(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was stopped: by whom, why, and when by the wall clock of whoever did it.

    ``target`` is empty for ``all``, else the name of a region, a model (or ``model@version``), or
    of any process (a device, a gateway, the cloud; or ``region/process``).
    """

    scope: StopScope
    mode: StopMode
    why: _Reason
    by: _ShortText
    wall_s: float
    target: _ShortText = ""


class OverrideKind(enum.StrEnum):
    """What an override does.

    Before a model is asked: ``pin`` answers with a label, ``tier`` has a tier answer. To what a
    model gives: ``ban`` takes labels away, ``boost`` adds to their log-odds. To the answer, whoever
    gave it: ``withhold`` keeps labels back, ``replace`` makes another label of them, both only
    where the confidence is below ``below``.
    """

    PIN = "pin"
    TIER = "tier"
    BAN = "ban"
    BOOST = "boost"
    WITHHOLD = "withhold"
    REPLACE = "replace"


_TAKES_LABELS = (
    OverrideKind.BAN, OverrideKind.BOOST, OverrideKind.WITHHOLD, OverrideKind.REPLACE,
)  # fmt: skip
MAX_BOOST = 20.0
MAX_LASTS_S = 31 * 86_400.0
_Label = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that an operator wants otherwise, for a while: where, by whom and why.

    ``scope`` and ``target`` are as in ``Stop``. ``labels`` are names of classes. ``answer`` is the
    label that is answered (``pin``, ``replace``), ``tier`` the one that is to answer. ``context``
    are the values that a request's context must have, all of them, for a pin or a tier to hold.
    It ends ``lasts_s`` after ``wall_s``, by the clock of whoever serves the region, and wherever it
    is known, so long after it was heard there first.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    kind: OverrideKind
    scope: StopScope
    why: _Reason
    by: _ShortText
    wall_s: float
    lasts_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LASTS_S)]
    target: _ShortText = ""
    labels: Annotated[tuple[_Label, ...], msgspec.Meta(max_length=64)] = ()
    answer: Annotated[str, msgspec.Meta(max_length=128)] = ""
    tier: Annotated[str, msgspec.Meta(max_length=32)] = ""
    amount: Annotated[float, msgspec.Meta(ge=-MAX_BOOST, le=MAX_BOOST)] = 0.0
    below: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    context: Annotated[
        dict[_Label, Annotated[str, msgspec.Meta(max_length=128)] | float | bool],
        msgspec.Meta(max_length=8),
    ] = {}

    def __post_init__(self) -> None:
        """Refuses what would do nothing, or two things.

        Raises:
            ValueError: says what is wrong.
        """
        kind = self.kind
        if bool(self.labels) != (kind in _TAKES_LABELS):
            raise ValueError(f"{kind.value}: labels are for ban, boost, withhold and replace")
        if bool(self.answer) != (kind in (OverrideKind.PIN, OverrideKind.REPLACE)):
            raise ValueError(f"{kind.value}: an answer is for pin and replace")
        if bool(self.tier) != (kind is OverrideKind.TIER):
            raise ValueError(f"{kind.value}: a tier is for tier")
        if bool(self.amount) != (kind is OverrideKind.BOOST):
            raise ValueError(f"{kind.value}: an amount is for boost, and not 0")
        if self.context and kind not in (OverrideKind.PIN, OverrideKind.TIER):
            raise ValueError(f"{kind.value}: a context is for pin and tier")
        if self.answer in self.labels:
            raise ValueError(f"{kind.value}: {self.answer} would become itself")
        numbers = [self.wall_s, *(one for one in self.context.values() if isinstance(one, float))]
        if not all(math.isfinite(one) for one in numbers):
            raise ValueError(f"{kind.value}: a number is not finite")


class ControlState(msgspec.Struct, frozen=True, tag="control", tag_field="kind"):
    """Retained: all that is stopped or overridden in a region and below it; nothing is one, too.

    ``sequence`` only grows; what is not above the last one is ignored. ``by`` and ``why`` are of
    the latest change. ``roles``, ``key_id`` and ``signature`` are for who may stop what, and are
    not looked at yet.
    """

    region: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    stops: Annotated[tuple[Stop, ...], msgspec.Meta(max_length=256)] = ()
    by: _ShortText = ""
    why: Annotated[str, msgspec.Meta(max_length=500)] = ""
    roles: tuple[str, ...] = ()
    key_id: str = ""
    signature: str = ""
    overrides: Annotated[tuple[Override, ...], msgspec.Meta(max_length=256)] = ()
