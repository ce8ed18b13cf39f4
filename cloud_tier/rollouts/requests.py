"""What people ask of the service, as values: checked before anything is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from runtime.assignments import MAX_REPORT_BYTES
from runtime.common_settings import Name
from runtime.core.gate import GateSettings
from runtime.core.rollout_settings import (
    Deadlines,
    RolloutSettings,
    ShadowSettings,
    SplitTerms,
    Window,
)
from runtime.errors import RequestError

MAX_BODY_BYTES = 4 * MAX_REPORT_BYTES
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"\S")]
Who = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"\S")]
# Of the chance of a false alarm; the rest is for the later waves.
_CANARY_ALPHA = 0.4
_PARTS: dict[str, type[msgspec.Struct]] = {
    "gate": GateSettings,
    "shadow": ShadowSettings,
    "deadlines": Deadlines,
    "split": SplitTerms,
}


class StartRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rollout to be started, or only drafted.

    ``settings`` are those fields of ``RolloutSettings`` that are to differ. ``group`` is the
    cascade of the model: of a group one rollout goes on at a time. ``clears_bad`` tries the version
    again on devices that have given it up. ``version`` 0 is the newest.
    """

    model: Name
    version: Annotated[int, msgspec.Meta(ge=0)]
    by: Who
    why: Words
    region: Name | None = None
    id: Name | None = None
    group: Name | None = None
    settings: dict[str, Any] = {}
    is_draft: bool = False
    clears_bad: bool = False


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks for a command, and why."""

    by: Who
    why: Words


def settings_of(given: Mapping[str, Any]) -> RolloutSettings:
    """The settings of a rollout; what is not given is as usual.

    Raises:
        RequestError: a field is unknown, or a value is out of its range.
    """
    values = dict(given)
    _check_names(values, RolloutSettings, "")
    for name, part in _PARTS.items():
        if isinstance(values.get(name), dict):
            _check_names(values[name], part, f"{name}.")
    for region, windows in dict(values.get("windows") or {}).items():
        for window in windows if isinstance(windows, list) else ():
            _check_names(window, Window, f"windows.{region}.")
    shares = values.get("shares")
    if isinstance(shares, list) and shares and "alpha_shares" not in values:
        values["alpha_shares"] = _alpha_shares(len(shares))
    if isinstance(values.get("gate"), dict):
        values["gate"].setdefault("alpha", RolloutSettings().gate.alpha)
    try:
        return msgspec.convert(values, RolloutSettings)
    except (msgspec.ValidationError, TypeError) as error:
        raise RequestError(f"the plan cannot be used: {error}") from error


def _alpha_shares(num: int) -> list[float]:
    if num == 1:
        return [1.0]
    return [_CANARY_ALPHA, *[(1 - _CANARY_ALPHA) / (num - 1)] * (num - 1)]


def _check_names(given: object, fields: type[msgspec.Struct], where: str) -> None:
    known = fields.__struct_fields__
    for name in given if isinstance(given, dict) else ():
        if name not in known:
            there = ", ".join(f"{where}{one}" for one in known)
            raise RequestError(f"a plan has no {where}{str(name)[:40]}; there are {there}")
