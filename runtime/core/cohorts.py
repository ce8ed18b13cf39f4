"""Which devices get a new version first: the waves of a rollout, planned once and kept.

Rules of this file:
  * the order is a hash of rollout and device, so it is the same wherever it is computed, and
    another one for every rollout: nobody is always the canary;
  * devices are ranked, never compared with a threshold: in a small fleet a threshold may leave a
    wave empty;
  * every wave takes from all strata (region and hardware) in proportion, to one device;
  * waves are the beginnings of one order: a larger share only adds devices;
  * a wave adds ``min_canary`` devices at least, or none where those before it are enough; only the
    last may add fewer, where fewer are left. Never more than ``share * n + min_canary`` in all;
  * who is unhealthy, or pinned to a version, is left out, with the reason.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

MIN_CANARY = 3


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device that may take part; ``left_out`` says why it does not ("pinned", "unhealthy")."""

    id: str
    region: str
    hardware: str
    left_out: str = ""


class Plan(msgspec.Struct, frozen=True):
    """The devices that each wave adds, in their order, and why others are left out."""

    waves: tuple[tuple[str, ...], ...]
    left_out: dict[str, str]


def draw(*names: str) -> float:
    """A number from 0 to below 1 that depends on the names alone, and on where each one ends."""
    text = b"".join(len(name.encode()).to_bytes(4) + name.encode() for name in names)
    # 53 bits are what a float holds: 64 would round up to 1.
    return (int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 11) * 2.0**-53


def order(rollout_id: str, devices: Iterable[Device]) -> list[str]:
    """Devices in the order in which they get the new version.

    Systematic sampling: the k-th of a stratum's m devices stands at ``(k + offset) / m``, with one
    random offset a stratum, so every beginning of the order has each stratum's share of it.
    """
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for device in devices:
        strata[device.region, device.hardware].append(device.id)
    places: list[tuple[float, str]] = []
    for (region, hardware), ids in strata.items():
        ids.sort(key=lambda one: (draw(rollout_id, one), one))
        offset = draw(rollout_id, region, hardware)
        places += [((rank + offset) / len(ids), one) for rank, one in enumerate(ids)]
    return [one for _, one in sorted(places)]


def wave_ends(num: int, shares: Sequence[float], min_canary: int = MIN_CANARY) -> list[int]:
    """How many of ``num`` devices have the new version after each wave.

    Raises:
        ValueError: ``shares`` do not rise to 1, or waves may be smaller than three devices.
    """
    rising = all(low < high for low, high in itertools.pairwise(shares))
    if not shares or not rising or not shares[0] > 0 or shares[-1] != 1:
        raise ValueError(f"shares of waves have to rise from above 0 to 1, not {list(shares)}")
    if min_canary < MIN_CANARY:
        raise ValueError(f"a wave is at least {MIN_CANARY} devices, not {min_canary}")
    ends: list[int] = []
    so_far = 0
    for share in shares:
        # Rounding of products such as 0.07 * 100 must not add a device.
        wanted = math.ceil(share * num - 1e-9)
        if wanted > so_far:
            so_far = min(num, max(wanted, so_far + min_canary))
        ends.append(so_far)
    return ends


def plan(
    rollout_id: str,
    devices: Sequence[Device],
    shares: Sequence[float],
    min_canary: int = MIN_CANARY,
) -> Plan:
    """The waves of a rollout; store it: later devices join the last wave.

    Raises:
        ValueError: a device is named twice, or see ``wave_ends``.
    """
    if len({device.id for device in devices}) != len(devices):
        raise ValueError("a device is named twice in the plan of a rollout")
    ranked = order(rollout_id, [device for device in devices if not device.left_out])
    ends = wave_ends(len(ranked), shares, min_canary)
    starts = [0, *ends[:-1]]
    return Plan(
        waves=tuple(tuple(ranked[a:b]) for a, b in zip(starts, ends, strict=True)),
        left_out={device.id: device.left_out for device in devices if device.left_out},
    )


def stagger_s(rollout_id: str, region: str, window_s: float) -> float:
    """How long after a wave began a region joins it, 0 to below ``window_s``."""
    return window_s * draw("stagger", rollout_id, region)
