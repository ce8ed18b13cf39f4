"""Where new models arrive: who the process is, and what its settings say of models."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.common_settings import EscalationSettings, ModelSettings, StateSettings
from runtime.exchange.course import Identity
from runtime.updating.settings import UpdateSettings


@dataclass(frozen=True, slots=True)
class Place:
    """The process that takes new models; the same for every tier."""

    identity: Identity
    model: ModelSettings
    state: StateSettings
    escalation: EscalationSettings
    updates: UpdateSettings
