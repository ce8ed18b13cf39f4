"""Which gateway an agent asks: the power of two choices on reported load (Mitzenmacher, 2001)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from runtime.messages import Birth, ControlMessage, Draining, Offline


@dataclass(slots=True)
class GatewayBook:
    """The gateways of a region as their retained states describe them.

    ``epoch`` settles races: an old will that arrives after a new birth changes nothing.
    """

    _online: dict[str, Birth] = field(default_factory=dict)
    _epochs: dict[str, int] = field(default_factory=dict)

    def note(self, state: ControlMessage) -> bool:
        """Takes a state in; False when it was older than what is known, or is no state."""
        if not isinstance(state, Birth | Offline | Draining):
            return False
        if state.epoch < self._epochs.get(state.site, 0):
            return False
        self._epochs[state.site] = state.epoch
        if isinstance(state, Birth):
            self._online[state.site] = state
        else:
            self._online.pop(state.site, None)
        return True

    def note_queue(self, site: str, queue_len: int) -> None:
        """A gateway says with a reply how much it has to do."""
        known = self._online.get(site)
        if known is not None and known.queue_len != queue_len:
            self._online[site] = msgspec.structs.replace(known, queue_len=queue_len)

    @property
    def online(self) -> Mapping[str, Birth]:
        """Gateways that take work, by id."""
        return self._online

    def forget(self, site: str) -> None:
        """The state of a gateway was removed."""
        self._online.pop(site, None)
        self._epochs.pop(site, None)

    def forget_all(self) -> None:
        """The connection was lost: what was known may be old."""
        self._online.clear()
        self._epochs.clear()

    def choose(
        self,
        *,
        avoid: frozenset[str],
        draws: tuple[float, float],
        pinned: str = "",
        barred: frozenset[str] = frozenset(),
    ) -> str | None:
        """The id of a gateway to ask, or None.

        Args:
            avoid: ids that failed lately; used only when nobody else is there.
            draws: two uniform random numbers in [0, 1).
            pinned: the one gateway that settings allow, if any.
            barred: ids that are not asked even when nobody else is there.
        """
        allowed = self._online.keys() - barred
        if pinned:
            return pinned if pinned in allowed else None
        candidates = sorted(allowed - avoid) or sorted(allowed)
        if not candidates:
            return None
        first, second = (candidates[int(draw * len(candidates))] for draw in draws)
        return min((first, second), key=self._load)

    def _load(self, site: str) -> float:
        state = self._online[site]
        return state.queue_len / max(1, state.capacity)
