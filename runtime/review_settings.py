"""Settings of what is handed to people, of every tier."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ReviewSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which answers people look at, beside those that the policy hands to them."""

    send_inputs: Annotated[
        bool,
        Meta(
            description="Whether inputs of what waits for a person go up to the cloud, where the "
            "request's residency lets them; else it can be labelled where it is, and only there."
        ),
    ] = True
    audits: Annotated[
        bool, Meta(description="Whether audits that the top tier disagrees with are reviewed.")
    ] = True
    disagreement_share: Annotated[
        float,
        Meta(
            description="Share of the answers that tiers disagree on which are reviewed.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    drift_share: Annotated[
        float,
        Meta(
            description="Share of all answers that are reviewed while a drift alarm is on.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    random_share: Annotated[
        float, Meta(description="Share of all answers that are reviewed.", ge=0, le=1)
    ] = 0.0
    sampled_per_hour: Annotated[
        float,
        Meta(description="Most answers that are handed over so, an hour.", gt=0, le=100_000),
    ] = 60.0
    sla_s: Annotated[
        float,
        Meta(description="Time in s in which people are to have looked at them.", gt=0, le=1e8),
    ] = 604_800.0

    @property
    def samples(self) -> bool:
        """Whether answers are handed over that no policy has chosen."""
        return self.audits or max(self.disagreement_share, self.drift_share, self.random_share) > 0
