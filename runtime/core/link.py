"""The chance that a reply from the tier above returns in time, and what the way there takes.

A window of the latest end-to-end times, weighted by age, each less what its bytes took at the
bandwidth seen. Late and lost replies count as failures and are never left out, or the estimate
would only hear from survivors. The prior follows the long run by count and not by time, so that a
gate which closed in an outage stays closed until a probe comes back; after a silence it knows the
usual round trip as RFC 6298 has it, which is too coarse for anything else.

Few observations are given the benefit of the doubt, as bandits do (Auer, Cesa-Bianchi and Fischer,
2002): who asks in vain learns from it, and who does not ask never hears that he should have. It is
in proportion to what was seen; silence adds none, and in an outage there is none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, median

# RFC 6298, section 2.
_MEAN_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4
# From the usual time this many deviations on, everything is in time.
_DEVIATIONS = 4
_MIN_DEVIATION_MS = 1.0
# So many half-lives from the epoch a new one begins; so many ago, an observation weighs nothing.
_MAX_EXPONENT = 100.0
_NOTHING = 1000.0
# Sizes that differ by less tell nothing of the bandwidth.
_MIN_SPREAD_BYTES = 4096
_BANDWIDTH_GAIN = 0.2
_MIN_OF_EACH = 4
# A round trip is not known better than the fewest replies say.
MIN_REPLIES = 8
# So many in a row that did not come back in time are an outage and no bad luck.
OUTAGE = 4
# Of what few observations leave open, so many standard errors count as seen.
_DOUBT = 1.5
# Putting times in order costs more than all else here, and one more changes little.
_ORDERED_FOR = 8


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """``half_life_s``: after this time an observation counts half."""

    window: int = 100
    half_life_s: float = 1.0
    prior_chance: float = 0.8
    prior_weight: float = 1.0
    prior_step: float = 0.1
    probe_interval_s: float = 0.5


@dataclass(slots=True)
class Observed:
    """One request that was sent up, and what was heard: after ``elapsed_ms``, or not until then.

    ``remote_ms`` is what the tiers above worked; None where none has said.
    """

    at_s: float
    elapsed_ms: float
    num_bytes: int
    is_reply: bool
    remote_ms: float | None = None
    was_given_up: bool = False
    # As seen from the epoch of the estimator; all weights fade alike.
    weight: float = 0.0


class LinkEstimator:
    """End-to-end times to one destination; the caller passes the monotonic time."""

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._observed: deque[Observed] = deque(maxlen=settings.window)
        self._prior = settings.prior_chance
        self._sent_at_s: float | None = None
        self._usual_ms: float | None = None
        self._deviation_ms = 0.0
        self._ms_per_byte = 0.0
        self._epoch_s = 0.0
        # Times in order, by what they are of, and at which observation they were put in order.
        self._ordered: dict[str, tuple[int, list[float]]] = {}
        self._num_noted = 0

    def note_sent(self, now_s: float) -> None:
        """A request left; the next probe is due ``probe_interval_s`` later."""
        self._sent_at_s = now_s

    def note_reply(
        self,
        now_s: float,
        elapsed_ms: float,
        *,
        num_bytes: int = 0,
        remote_ms: float | None = None,
    ) -> None:
        """A reply came back in time, ``elapsed_ms`` after its request of ``num_bytes`` was sent."""
        self._forget_outage()
        self._note(Observed(now_s, elapsed_ms, num_bytes, is_reply=True, remote_ms=remote_ms))
        self._learn_usual(elapsed_ms - self._ms_per_byte * num_bytes)
        self._learn_bandwidth()

    def note_lost(self, now_s: float, waited_ms: float, *, num_bytes: int = 0) -> Observed:
        """No reply came while ``waited_ms`` went by; for ``note_late``, should it still come."""
        lost = Observed(now_s, waited_ms, num_bytes, is_reply=False, was_given_up=True)
        self._note(lost)
        return lost

    def note_late(self, lost: Observed, elapsed_ms: float) -> None:
        """The reply that was given up came after all; it counts for longer waits from now on."""
        if lost.is_reply:
            return
        lost.is_reply, lost.elapsed_ms = True, max(elapsed_ms, lost.elapsed_ms)
        self._learn_usual(elapsed_ms - self._ms_per_byte * lost.num_bytes)

    def _forget_outage(self) -> None:
        """What went wrong in a row says nothing about a link that is back."""
        num_lost = 0
        for observed in reversed(self._observed):
            if not observed.was_given_up:
                break
            num_lost += 1
        if num_lost >= OUTAGE:
            for _ in range(num_lost):
                self._observed.pop()

    def _note(self, observed: Observed) -> None:
        self._num_noted += 1
        exponent = (observed.at_s - self._epoch_s) / self._settings.half_life_s
        if exponent > _MAX_EXPONENT:
            faded = 0.5 ** min(exponent, _NOTHING)
            for one in self._observed:
                one.weight *= faded
            self._epoch_s, exponent = observed.at_s, 0.0
        observed.weight = 2.0**exponent
        self._observed.append(observed)
        self._prior += self._settings.prior_step * (float(observed.is_reply) - self._prior)

    def _learn_usual(self, elapsed_ms: float) -> None:
        if self._usual_ms is None:
            self._usual_ms, self._deviation_ms = elapsed_ms, elapsed_ms / 2
            return
        off = abs(self._usual_ms - elapsed_ms)
        self._deviation_ms += _DEVIATION_GAIN * (off - self._deviation_ms)
        self._usual_ms += _MEAN_GAIN * (elapsed_ms - self._usual_ms)

    def _learn_bandwidth(self) -> None:
        """From how much longer large payloads took than small ones, in the window."""
        sizes = [one.num_bytes for one in self._observed if one.is_reply]
        smallest, largest = min(sizes), max(sizes)
        if largest - smallest < _MIN_SPREAD_BYTES:
            return
        middle = (smallest + largest) / 2
        small = [one for one in self._observed if one.is_reply and one.num_bytes < middle]
        large = [one for one in self._observed if one.is_reply and one.num_bytes >= middle]
        if min(len(small), len(large)) < _MIN_OF_EACH:
            return
        more_ms = median(one.elapsed_ms for one in large) - median(o.elapsed_ms for o in small)
        more_bytes = fmean(one.num_bytes for one in large) - fmean(o.num_bytes for o in small)
        slope = max(0.0, more_ms / more_bytes)
        self._ms_per_byte += _BANDWIDTH_GAIN * (slope - self._ms_per_byte)

    def chance(self, now_s: float, remaining_ms: float, *, num_bytes: int = 0) -> float:
        """Probability, 0 to 1, that a request sent now is answered within ``remaining_ms``."""
        if not remaining_ms > 0:
            return 0.0
        # As if it had no bytes, so that requests of all sizes can be compared.
        waits_ms = remaining_ms - self._ms_per_byte * num_bytes
        if waits_ms <= 0:
            return 0.0
        total = self._settings.prior_weight
        in_time = total * self._prior * self._usually_in_time(waits_ms)
        heard = heard_in_time = 0.0
        for observed in self._observed:
            took_ms = observed.elapsed_ms - self._ms_per_byte * observed.num_bytes
            weight = observed.weight
            if not observed.is_reply:
                # A short silence says little about a longer wait.
                heard += weight * min(1.0, max(0.0, took_ms) / waits_ms)
                continue
            heard += weight
            if took_ms <= waits_ms:
                heard_in_time += weight
        faded: float = 0.5 ** min(_NOTHING, (now_s - self._epoch_s) / self._settings.half_life_s)
        seen = (in_time + faded * heard_in_time) / (total + faded * heard)
        if not self._observed or self._is_down():
            return seen
        newest = self._observed[-1].weight
        # Rounding may make it a little more than 1.
        doubt = math.sqrt(max(0.0, 1.0 - seen) / (total + heard / newest))
        return min(1.0, seen * (1.0 + _DOUBT * doubt))

    def _is_down(self) -> bool:
        latest = list(islice(reversed(self._observed), OUTAGE))
        return len(latest) == OUTAGE and all(one.was_given_up for one in latest)

    def _usually_in_time(self, waits_ms: float) -> float:
        if self._usual_ms is None:
            return 1.0
        deviation_ms = max(_MIN_DEVIATION_MS, self._deviation_ms)
        share = 0.5 + (waits_ms - self._usual_ms) / (2 * _DEVIATIONS * deviation_ms)
        return min(1.0, max(0.0, share))

    def travel_ms(self, quantile: float, *, num_bytes: int = 0) -> float | None:
        """What the way there and back takes, without work above; None before enough replies."""
        return self._quantile(
            "travel",
            quantile,
            num_bytes,
            lambda one: None if one.remote_ms is None else one.elapsed_ms - one.remote_ms,
        )

    def elapsed_ms(self, quantile: float, *, num_bytes: int = 0) -> float | None:
        """What replies take from end to end; None before enough of them."""
        return self._quantile("elapsed", quantile, num_bytes, lambda one: one.elapsed_ms)

    def _quantile(
        self,
        of: str,
        quantile: float,
        num_bytes: int,
        time_of: Callable[[Observed], float | None],
    ) -> float | None:
        noted, times = self._ordered.get(of, (-_ORDERED_FOR, []))
        if self._num_noted - noted >= _ORDERED_FOR or len(times) < MIN_REPLIES:
            times = sorted(
                took_ms - self._ms_per_byte * one.num_bytes
                for one in self._observed
                if one.is_reply and (took_ms := time_of(one)) is not None
            )
            self._ordered[of] = self._num_noted, times
        if len(times) < MIN_REPLIES:
            return None
        position = min(len(times), math.ceil((len(times) + 1) * quantile)) - 1
        return max(0.0, times[position] + self._ms_per_byte * num_bytes)

    def probe_is_due(self, now_s: float) -> bool:
        """Whether nothing was sent for so long that a closed gate deserves a try."""
        if self._sent_at_s is None:
            return True
        return now_s - self._sent_at_s >= self._settings.probe_interval_s
