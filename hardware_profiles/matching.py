"""Which profile a host is, and what is to be told about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hardware_profiles.detect import Host
from hardware_profiles.profile import Match, Profile, tags_of
from hardware_profiles.registry import load_profiles

# A machine's own kernel and firmware take some of what is built in; less than this is worth a word.
_CLAIMED_SHARE = 0.8
_GIB = 2**30
_CUDA = frozenset({"cuda"})
_JETSON = _CUDA | {"jetson"}


@dataclass(frozen=True, slots=True)
class Matched:
    """A host and its profile; ``is_exact`` is false for the generic one of its machine.

    ``memory_bytes`` is what counts: the least of what is claimed and what is there, 0 where neither
    is known. ``notes`` are sentences for people.
    """

    host: Host
    profile: Profile
    is_exact: bool
    accelerators: tuple[Profile, ...]
    memory_bytes: int
    notes: tuple[str, ...]

    @property
    def tags(self) -> frozenset[str]:
        """What variants may ask of this host: of its profile, its features, what is plugged in.

        An NVIDIA driver, or Linux for Tegra on a Jetson, means CUDA whatever the profile says.
        """
        found = tags_of(self.profile, self.host.machine) | frozenset(self.host.features)
        found |= _JETSON if self.host.l4t else _CUDA if self.host.nvidia else frozenset()
        return found.union(*(tags_of(one) for one in self.accelerators))

    def __str__(self) -> str:
        beside = "".join(f" with {one.title}" for one in self.accelerators)
        kind = "" if self.is_exact else ", no profile of its own"
        return f"{self.profile.name}{beside} ({self.profile.title}{kind})"


def match_host(host: Host, profiles: Mapping[str, Profile] | None = None) -> Matched:
    """The profile that the host shows to be, or the generic one of its machine.

    Of several that match, the one with the most conditions wins, then the name.

    Raises:
        SettingsError: the profiles that come with Tierwise cannot be read.
    """
    known = load_profiles() if profiles is None else profiles
    matching = [one for one in known.values() if one.match and _shows(host, one.match)]
    devices = [one for one in matching if one.kind != "accelerator"]
    devices = [one for one in devices if host.machine in one.machines]
    devices.sort(key=lambda one: (-_num_conditions(one.match), one.name))
    profile = devices[0] if devices else _generic(host, known)
    beside = tuple(one for one in matching if one.kind == "accelerator")
    memory_bytes, notes = _memory(host, profile)
    if not devices:
        notes = (f"no profile matches {host}: {profile.title} is taken", *notes)
    return Matched(host, profile, bool(devices), beside, memory_bytes, (*notes, *_limits(host)))


def _generic(host: Host, known: Mapping[str, Profile]) -> Profile:
    for one in known.values():
        if one.kind == "generic" and host.machine in one.machines:
            return one
    return Profile(
        name="unknown", title=f"a machine of an unknown kind ({host.machine})", kind="generic",
        machines=(), runtimes=("onnxruntime",), providers=("CPUExecutionProvider",),
    )  # fmt: skip


def _shows(host: Host, match: Match) -> bool:
    if match.usb:
        return any(one in host.usb for one in match.usb)
    wanted = [
        (match.board, (host.board,)),
        (match.cpu, (host.cpu,)),
        (match.nvidia, host.nvidia),
    ]
    given = [(pattern, texts) for pattern, texts in wanted if pattern]
    return bool(given) and all(
        any(re.search(pattern, text) for text in texts) for pattern, texts in given
    )


def _num_conditions(match: Match | None) -> int:
    return sum(bool(one) for one in (match.board, match.cpu, match.nvidia)) if match else 0


def _memory(host: Host, profile: Profile) -> tuple[int, tuple[str, ...]]:
    """What counts in bytes; the host's own word wherever it says more than the profile."""
    claimed = int(profile.value("memory_bytes") or 0)
    there = host.usable_memory_bytes
    if not there:
        return claimed, ("the memory of this host is not told; the profile's counts",) * (
            claimed > 0
        )
    if claimed and there < claimed * _CLAIMED_SHARE:
        has = f"{profile.name} has {claimed / _GIB:.2f} GiB"
        return there, (f"{there / _GIB:.2f} GiB of memory here, {has}: the smaller counts",)
    return there, ()


def _limits(host: Host) -> tuple[str, ...]:
    notes = []
    if host.limits.memory_bytes and host.limits.memory_bytes == host.usable_memory_bytes:
        notes.append(f"this container may use {host.limits.memory_bytes / _GIB:.2f} GiB of memory")
    if host.limits.cores and host.limits.cores < host.num_cores:
        notes.append(f"this container may use {host.limits.cores:g} of {host.num_cores} cores")
    return tuple(notes)
