"""The section ``tracing`` of the settings of every tier."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces of requests over all tiers, sent to an OpenTelemetry collector."""

    endpoint: Annotated[
        str,
        Meta(
            description="URL that takes traces as OTLP over HTTP; needs the extra `tracing` "
            "(`pip install 'tierwise[tracing]'`). Empty: nothing is traced, and what callers send "
            "is passed on.",
            pattern=r"^(?:https?://[!-~]{1,2000})?(?!\n)$",
            examples=["http://127.0.0.1:4318/v1/traces"],
            extra={"constraints": "empty, or an http(s) URL"},
        ),
    ] = ""
    sample_share: Annotated[
        float,
        Meta(
            description="Share of the requests that enter here without a trace context of their "
            "caller and are traced, over all tiers.",
            ge=0,
            le=1,
        ),
    ] = 0.01
    spool_max_bytes: Annotated[
        int,
        Meta(
            description="Size of the spans that wait on disk for the endpoint, in bytes; over it "
            "the oldest are dropped.",
            ge=65_536,
        ),
    ] = 16_777_216
    spool_max_age_s: Annotated[
        float, Meta(description="Time in s after which spans that wait are dropped.", gt=0)
    ] = 86_400.0
