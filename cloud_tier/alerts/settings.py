"""The section ``alerts`` of the cloud tier's settings."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.core.alerts import AlertRules


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts that need no Prometheus."""

    webhook_urls: Annotated[
        str,
        Meta(
            description="URLs that are told of alerts (HTTP POST, JSON), with commas between them; "
            "empty: none.",
            pattern=r"^(?:https?://[!-+\x2d-~]{1,500}(?:, *https?://[!-+\x2d-~]{1,500}){0,7})?(?!\n)$",
            examples=["https://hooks.example/tierwise"],
            extra={"constraints": "empty, or up to 8 http(s) URLs with commas between them"},
        ),
    ] = ""
    webhook_secret_file: Annotated[
        str,
        Meta(
            description="File with the secret by which webhooks are signed (HMAC-SHA256 in "
            "`X-Tierwise-Signature`); empty: unsigned."
        ),
    ] = ""
    mqtt: Annotated[
        bool,
        Meta(description="Whether firing alerts are retained messages of the cloud's broker."),
    ] = True
    interval_s: Annotated[
        float, Meta(description="How often all conditions are looked at, in s.", ge=0.05, le=600)
    ] = 5.0
    pending_for_s: Annotated[
        float, Meta(description="How long a condition holds before it is told, in s.", ge=0)
    ] = 60.0
    repeat_s: Annotated[
        float, Meta(description="How often one that goes on is told again, in s.", ge=1)
    ] = 14_400.0
    clear_for_s: Annotated[
        float,
        Meta(
            description="How long a condition is gone before its end is told, in s; each time it "
            "comes back doubles that, up to 32 times.",
            ge=0,
        ),
    ] = 120.0
    silent_after_s: Annotated[
        float,
        Meta(
            description="A device or gateway that says nothing for so long is an alert, in s; one "
            "for a region where many do not. 0: none is.",
            ge=0,
        ),
    ] = 3600.0
    missing_after_s: Annotated[
        float,
        Meta(
            description="Decisions that a tier has numbered and that have not come for so long are "
            "an alert, in s; 0: none are.",
            ge=0,
        ),
    ] = 3600.0

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs in ``webhook_urls``."""
        return tuple(url.strip() for url in self.webhook_urls.split(",") if url.strip())

    @property
    def rules(self) -> AlertRules:
        """The numbers of the machine."""
        return AlertRules(
            pending_for_s=self.pending_for_s, repeat_s=self.repeat_s, clear_for_s=self.clear_for_s
        )
