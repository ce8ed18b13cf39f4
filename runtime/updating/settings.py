"""Settings of a device's updates."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.core.trial import TrialLimits

_URL = r"https?://[^\s?#]+"


class UpdateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New models: where they come from, and what they have to show on this device."""

    url: Annotated[
        str,
        Meta(
            description="Base URL of the HTTP port of the gateway, or several of them with blanks "
            "between them, the best first; empty: this device takes no new models.",
            pattern=rf"^({_URL}( {_URL})*)?(?!\n)$",
            examples=["http://gateway.example:8471"],
            extra={"constraints": "empty, or http:// or https:// without a query"},
        ),
    ] = ""
    root: Annotated[
        str,
        Meta(
            description="File with the signed root of the catalogue (`1.root.json` of the "
            "repository); needed where `url` is set.",
            examples=["/etc/tierwise/root.json"],
        ),
    ] = ""
    hardware: Annotated[
        str,
        Meta(
            description="Tags of what this device is and has, with blanks between them; a variant "
            "of a model is taken if it asks for no other ones. Empty: what is found "
            "(`tierwise hardware detect`).",
            examples=["aarch64 jetson-orin"],
        ),
    ] = ""
    refresh_interval_s: Annotated[
        float,
        Meta(
            description="How often the catalogue is fetched, in s, and what could not be had is "
            "asked for again.",
            gt=0,
        ),
    ] = 300.0
    report_interval_s: Annotated[
        float,
        Meta(description="How often this device says which model serves, in s.", gt=0),
    ] = 60.0
    judge_interval_s: Annotated[
        float, Meta(description="How often a model on probation is judged, in s.", gt=0)
    ] = 5.0
    quota_bytes: Annotated[
        int,
        Meta(
            description="Size of all models that are kept on this device in bytes; what would go "
            "over it is refused.",
            ge=1_048_576,
        ),
    ] = 2_147_483_648
    memory_limit_mb: Annotated[
        int,
        Meta(
            description="Resident memory in MB over which a new model is given up while it is "
            "tried in a process of its own; 0: none. Linux only.",
            ge=0,
        ),
    ] = 1024
    shadow_share: Annotated[
        float,
        Meta(
            description="Share of the requests that a new model sees as well before it answers "
            "any, one at a time; 0: it answers at once.",
            ge=0,
            le=1,
        ),
    ] = 0.2
    min_shadowed: Annotated[
        int,
        Meta(
            description="Requests that both models must have seen before the new one answers.",
            ge=0,
        ),
    ] = 100
    min_agreement: Annotated[
        float,
        Meta(
            description="Share of those on which the two must agree; a new model is given up when "
            "it is surely below.",
            gt=0,
            lt=1,
        ),
    ] = 0.9
    soak_s: Annotated[
        float, Meta(description="How long a new model answers on probation at least, in s.", ge=0)
    ] = 600.0
    deadline_s: Annotated[
        float,
        Meta(
            description="Time in s after which one that has seen too few requests to be judged is "
            "given up.",
            gt=0,
        ),
    ] = 86_400.0
    min_requests: Annotated[
        int, Meta(description="Requests that it must have answered on probation.", ge=1)
    ] = 200
    max_invalid: Annotated[
        int, Meta(description="Outputs without meaning (NaN, infinity) that are excused.", ge=0)
    ] = 0
    max_ratio: Annotated[
        float,
        Meta(
            description="How many times as often as the model before it may fail or escalate.",
            ge=1,
        ),
    ] = 1.5
    max_slowdown: Annotated[
        float,
        Meta(
            description="How many times the time of 19 in 20 runs of the model before it may take.",
            ge=1,
        ),
    ] = 1.25
    latency_floor_ms: Annotated[
        float,
        Meta(description="Runs up to this time in ms are never slow.", ge=0),
    ] = 2.0

    def __post_init__(self) -> None:
        """Refuses what does not go together.

        Raises:
            ValueError: says what.
        """
        if self.url and not self.root:
            raise ValueError("url needs root: the file with the signed root of the catalogue")
        if self.soak_s > self.deadline_s:
            raise ValueError(f"soak_s ({self.soak_s:g}) is over deadline_s ({self.deadline_s:g})")

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs, the best first."""
        return tuple(self.url.split())

    @property
    def tags(self) -> frozenset[str]:
        """What this device is and has."""
        return frozenset(self.hardware.split())

    @property
    def is_shadowed(self) -> bool:
        """Whether a new model sees requests before it answers any."""
        return self.shadow_share > 0 and self.min_shadowed > 0

    def trial_limits(self) -> TrialLimits:
        """What a model has to show while it answers."""
        return TrialLimits(
            soak_s=self.soak_s,
            deadline_s=self.deadline_s,
            min_requests=self.min_requests,
            max_invalid=self.max_invalid,
            max_ratio=self.max_ratio,
            max_slowdown=self.max_slowdown,
            min_agreement=self.min_agreement,
        )

    def shadow_limits(self) -> TrialLimits:
        """What it has to show before that; it is judged by requests, not by time."""
        num = max(1, self.min_shadowed)
        return msgspec.structs.replace(
            self.trial_limits(), soak_s=0.0, min_requests=num, min_shadowed=num
        )
