"""Spans in memory, for tests to look at."""

from __future__ import annotations

from runtime.core.tracing import Span


class Recorder:
    """Spans in memory."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def named(self, name: str, tier: str = "") -> list[Span]:
        return [
            one
            for one in self.spans
            if one.name == name and tier in ("", one.attributes["tierwise.tier"])
        ]

    def one(self, name: str, tier: str = "") -> Span:
        (span,) = self.named(name, tier)
        return span
