"""Which members of a tier's model are left out without being run.

Those that fail or give what is no answer too often, that are stuck in one run, or whose confidence
has collapsed. A breaker each (``runtime.core.breaker``) lets probes through until they are well.
Lives on the event loop, but for ``begin`` and ``end``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from runtime.core.breaker import Breaker, Change, Pass
from runtime.core.collapse import Collapse
from runtime.messages import Tensors

# A run that takes longer than this, and many times what it usually takes, is stuck.
STUCK_S = 1.0
STUCK_TIMES = 20.0
# Numbers of an input that tell it from another.
_SAMPLES = 64


class MemberGuard:
    """A breaker and a collapse for each member."""

    def __init__(
        self, names: Iterable[str], on_change: Callable[[Change], None] | None = None
    ) -> None:
        self._breakers = {name: Breaker(name, on_change=on_change) for name in names}
        self._collapses = {name: Collapse() for name in self._breakers}
        # When the run that a member is in should have ended.
        self._until_s: dict[str, float] = {}

    def enter(self, now_s: float) -> dict[str, Pass]:
        """Who may run now; all of them have to ``leave``."""
        passes: dict[str, Pass] = {}
        for name, breaker in self._breakers.items():
            if self._is_stuck(name, now_s):
                breaker.trip(now_s, "it is stuck in one run")
                continue
            passed = breaker.enter(now_s)
            if passed is not None:
                passes[name] = passed
        return passes

    def _is_stuck(self, name: str, now_s: float) -> bool:
        until_s = self._until_s.get(name)
        return until_s is not None and now_s > until_s

    def begin(self, name: str, now_s: float, usual_ms: float) -> None:
        """A member starts to work, in whatever thread."""
        self._until_s[name] = now_s + STUCK_S + STUCK_TIMES * usual_ms / 1000

    def end(self, name: str) -> None:
        """A member has ended its work."""
        self._until_s.pop(name, None)

    def leave(self, passes: Mapping[str, Pass], now_s: float, said: Mapping[str, bool]) -> None:
        """How it went: whether a member gave an answer; who is missing in ``said`` was late."""
        for name, passed in passes.items():
            self._breakers[name].leave(passed, now_s, succeeded=said.get(name))

    def is_stuck_at(self, name: str, confidence: float) -> bool:
        """Whether a member says no more than what it said of everything when it collapsed."""
        return self._collapses[name].is_stuck_at(confidence)

    def watch(self, name: str, now_s: float, confidence: float, label: int, mark: bytes) -> None:
        """Takes in what a member said of one example."""
        why = self._collapses[name].note(confidence, label, mark)
        if why:
            self._breakers[name].trip(now_s, why)


def mark_of(inputs: Tensors) -> bytes:
    """Tells inputs apart, by a few of their numbers."""
    first = next(iter(inputs.values())).reshape(-1)
    return first[:: max(1, first.size // _SAMPLES)].tobytes()
