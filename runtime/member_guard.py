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

# A member whose run takes this long on top of many times the usual is not given another request
# while there are others; after the longer time it is stuck, and its breaker opens.
SUSPECT_S = 0.1
STUCK_S = 1.0
SUSPECT_TIMES = 20.0
# Numbers of an input that tell it from another.
_SAMPLES = 64


class MemberGuard:
    """A breaker and a collapse for each member."""

    def __init__(
        self, names: Iterable[str], on_change: Callable[[Change], None] | None = None
    ) -> None:
        self._breakers = {name: Breaker(name, on_change=on_change) for name in names}
        self._collapses = {name: Collapse() for name in self._breakers}
        # When the run that a member is in should have ended at the latest.
        self._due_s: dict[str, float] = {}

    def enter(self, now_s: float) -> dict[str, Pass]:
        """Who may run now; all of them have to ``leave``."""
        passes: dict[str, Pass] = {}
        suspects: list[str] = []
        for name, breaker in self._breakers.items():
            late_s = now_s - self._due_s.get(name, now_s)
            if late_s > STUCK_S:
                breaker.trip(now_s, "it is stuck in one run")
            elif late_s > SUSPECT_S:
                suspects.append(name)
            elif (passed := breaker.enter(now_s)) is not None:
                passes[name] = passed
        # Where all are late, it is the machine.
        for name in () if passes else suspects:
            passed = self._breakers[name].enter(now_s)
            if passed is not None:
                passes[name] = passed
        return passes

    def begin(self, name: str, now_s: float, usual_ms: float) -> None:
        """A member starts to work, in whatever thread."""
        self._due_s[name] = now_s + SUSPECT_TIMES * usual_ms / 1000

    def end(self, name: str) -> None:
        """A member has ended its work."""
        self._due_s.pop(name, None)

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
