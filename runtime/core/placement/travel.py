"""How long answers take: seeded samples of work, waiting and travelling, added up.

A Monte Carlo with ``NUM_SAMPLES`` draws for each part, the same draws for every chain and every
change of a figure, so that two placements differ by their figures and never by luck. Work and round
trips are lognormal (median and 99th percentile as given); waiting is that of an M/M/1 queue at the
utilization a machine comes to when everything reaches its stop, at most ``max_utilization``: an
upper bound where several workers share a queue.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from runtime.core.placement.case import Case, Link, Load, Place, Spread
from runtime.core.placement.curves import Floats

NUM_SAMPLES = 4096
# Of the standard normal distribution.
_Z99 = 2.3263478740408408
_BITS = 8
_MS = 1000.0


Ways = Mapping[tuple[str, str], tuple[Link, ...]]


class Sampler:
    """Draws by name, remembered."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._normal: dict[str, Floats] = {}
        self._uniform: dict[str, Floats] = {}
        # What was last made of a name, and of which figures.
        self._last: dict[str, tuple[object, Floats]] = {}

    def spread_ms(self, name: str, spread: Spread) -> Floats:
        """(n,) lognormal."""
        return self._remembered(name, spread, lambda: self._spread_ms(name, spread))

    def _spread_ms(self, name: str, spread: Spread) -> Floats:
        if name not in self._normal:
            self._normal[name] = self._generator(name).standard_normal(NUM_SAMPLES)
        sigma = math.log(spread.p99_ms / spread.p50_ms) / _Z99
        found: Floats = spread.p50_ms * np.exp(sigma * self._normal[name])
        return found

    def wait_ms(self, name: str, service_ms: float, utilization: float) -> Floats:
        """(n,) waiting in an M/M/1 queue."""
        name = f"wait {name}"
        figures = service_ms, utilization
        return self._remembered(name, figures, lambda: self._wait_ms(name, *figures))

    def _wait_ms(self, name: str, service_ms: float, utilization: float) -> Floats:
        drawn = self.uniform(name)
        mean_ms = service_ms / (1 - utilization)
        # P(W > t) = utilization * exp(-t / mean), turned round.
        found: Floats = np.maximum(
            0.0, mean_ms * np.log(np.maximum(utilization, 1e-300) / np.maximum(drawn, 1e-300))
        )
        return found

    def uniform(self, name: str) -> Floats:
        """(n,) from 0 to 1."""
        if name not in self._uniform:
            self._uniform[name] = self._generator(name).random(NUM_SAMPLES)
        return self._uniform[name]

    def link_ms(self, link: Link, load: Load) -> Floats:
        """(n,) round trips with their bytes; infinite where lost."""
        figures = link, load.request_bytes, load.reply_bytes
        name = f"link {link.name}"
        return self._remembered(name, figures, lambda: self._link_ms(link, load))

    def _link_ms(self, link: Link, load: Load) -> Floats:
        base_ms = max(link.rtt_ms, 1e-9)
        trip = self.spread_ms(link.name, Spread(base_ms, base_ms + link.jitter_ms))
        carried_ms = (load.request_bytes + load.reply_bytes) * _BITS / link.bandwidth_bps * _MS
        is_lost = self.uniform(f"loss {link.name}") < link.loss_share
        return np.where(is_lost, np.inf, trip + carried_ms)

    def _remembered(self, name: str, figures: object, make: Callable[[], Floats]) -> Floats:
        known = self._last.get(name)
        if known is None or known[0] != figures:
            known = self._last[name] = figures, make()
        return known[1]

    def _generator(self, name: str) -> np.random.Generator:
        # A stream of its own for each name: what is added to a case changes nothing else.
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])


def mean_service_ms(spread: Spread) -> float:
    """Of the lognormal."""
    sigma = math.log(spread.p99_ms / spread.p50_ms) / _Z99
    return spread.p50_ms * math.exp(sigma * sigma / 2)


def paths(case: Case) -> Ways:
    """The links between every two places that are connected, upwards: the least round trip."""
    return _paths(case.links, tuple((one.name, one.kind.height) for one in case.places))


@lru_cache(maxsize=64)
def _paths(links: tuple[Link, ...], places: tuple[tuple[str, int], ...]) -> Ways:
    found: dict[tuple[str, str], tuple[Link, ...]] = {}

    def takes_ms(path: tuple[Link, ...]) -> float:
        return math.fsum(link.rtt_ms for link in path)

    # Links lead upwards, so in this order what comes before a link is known.
    heights = dict(places)
    for link in sorted(links, key=lambda one: heights[one.upper]):
        before = {start: path for (start, end), path in found.items() if end == link.lower}
        for start, path in ({link.lower: ()} | before).items():
            way = (*path, link)
            known = found.get((start, link.upper))
            if known is None or takes_ms(way) < takes_ms(known):
                found[start, link.upper] = way
    return found


def utilization_at_most(case: Case, place: Place, service_ms: float) -> float:
    """Of one worker when everything that the case has reaches the place."""
    offered = case.load.peak_per_s / place.num_groups * service_ms / _MS / place.num_workers
    return min(case.max_utilization, offered)


def quantile_ms(samples: Floats, answered: Floats, share: float) -> tuple[float, float, float]:
    """A quantile of the mixture, with its 95 % interval by order statistics.

    Args:
        samples: (K, n) latencies of answers at each stop.
        answered: (K,) shares of the stops.
        share: which quantile, between 0 and 1.
    """
    weights = np.repeat(answered / samples.shape[1], samples.shape[1])
    flat = samples.ravel()
    order = np.argsort(flat, kind="stable")
    total = np.cumsum(weights[order])
    half = 1.959964 * math.sqrt(share * (1 - share) / samples.shape[1])
    wanted = np.clip([share - half, share, share + half], 0, 1) * total[-1]
    at = np.minimum(np.searchsorted(total, wanted - 1e-12), len(flat) - 1)
    low, middle, high = flat[order][at].tolist()
    return middle, low, high
