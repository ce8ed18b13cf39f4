"""Tells operators of breakers: a log line a change of state, and metrics without any ids."""

from __future__ import annotations

import logging
from typing import Literal

import structlog

from runtime.adapters.metrics import TierMetrics
from runtime.core.breaker import Change, State

Kind = Literal["upstream", "member"]
_REMEDIES = {
    "upstream": "requests go elsewhere or stay here meanwhile, and it is asked again by itself; "
    "look at the log of that gateway for `inference.failed`",
    "member": "the other members answer, or requests climb, and it is run again by itself; look "
    "for `model.process_ended` and `inference.failed`, and compare the model with its manifest",
}
_log = structlog.get_logger()


class BreakerSigns:
    """What the breakers of one kind tell; call it with every change."""

    def __init__(self, kind: Kind, metrics: TierMetrics) -> None:
        self._kind, self._metrics = kind, metrics
        self._states: dict[str, State] = {}

    def __call__(self, change: Change) -> None:
        """A breaker has changed its state."""
        was_known = change.key in self._states
        self._states[change.key] = change.state
        if change.state is State.CLOSED:
            del self._states[change.key]
            _log.info("breaker.closed", of=self._kind, name=change.key, why=change.why)
        elif change.state is State.HALF_OPEN:
            _log.debug("breaker.half_opened", of=self._kind, name=change.key)
        else:
            # Told once; that probes still fail is no news.
            _log.log(
                logging.INFO if was_known else logging.WARNING,
                "breaker.opened",
                of=self._kind,
                name=change.key,
                why=change.why,
                for_s=change.cool_down_s,
                remedy=_REMEDIES[self._kind],
            )
        self._metrics.count_breaker_change(self._kind, change.state.value)
        self._show()

    def forget(self, key: str) -> None:
        """Nobody has this breaker any more."""
        if self._states.pop(key, None) is not None:
            self._show()

    def _show(self) -> None:
        states = list(self._states.values())
        for state in (State.OPEN, State.HALF_OPEN):
            self._metrics.set_breakers(self._kind, state.value, states.count(state))
