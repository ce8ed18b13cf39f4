"""What ``tierwise hardware detect|list|show`` do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import msgspec

from hardware_profiles.detect import detect
from hardware_profiles.matching import Matched, match_host
from hardware_profiles.profile import Profile, tags_of
from hardware_profiles.registry import load_profiles, profile_named
from hardware_profiles.state import State, read_state
from tierwise.cli.output import say, say_json, say_table

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a figure is called, what it is divided by, and its unit.
UNITS = {
    "cores": ("cores", 1, ""),
    "clock_mhz": ("clock", 1, "MHz"),
    "memory_bytes": ("memory", 2**30, "GiB"),
    "memory_bytes_s": ("memory, copied by one thread", 1e9, "GB/s"),
    "core_flops": ("fp32 of one core", 1e9, "GFLOPS"),
    "cpu_flops": ("fp32 of all cores", 1e9, "GFLOPS"),
    "accelerator_flops": ("accelerator, floating point", 1e9, "GFLOPS"),
    "accelerator_int8_ops": ("accelerator, int8", 1e12, "TOPS"),
    "accelerator_bytes_s": ("accelerator, memory", 1e9, "GB/s"),
    "accelerator_memory_bytes": ("accelerator, memory", 2**30, "GiB"),
    "idle_w": ("power, idle", 1, "W"),
    "active_w": ("power, typical", 1, "W"),
    "max_w": ("power, most", 1, "W"),
    "tdp_w": ("power, TDP", 1, "W"),
    "throttle_c": ("clocks are lowered from", 1, "degrees C"),
}
NOT_READ = "(the document itself was not read for this profile)"
_GIB = 2**30


def run_detect(arguments: argparse.Namespace) -> int:
    """Says what this host is."""
    matched = match_host(detect(arguments.root))
    state = read_state(arguments.root)
    if arguments.json:
        say_json(_detected(matched, state))
        return 0
    say_table(("", "FOUND"), list(_rows(matched, state)))
    for note in matched.notes:
        say(f"note: {note}")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Lists all profiles."""
    profiles = load_profiles()
    if arguments.json:
        say_json([msgspec.to_builtins(one) for one in profiles.values()])
        return 0
    columns = ("cores", "memory_bytes", "core_flops", "max_w")
    head = ("PROFILE", "DEVICE", "KIND", "CORES", "MEMORY", "ONE CORE", "POWER")
    rows = [
        (name, one.title, one.kind, *(_amount(one, column) for column in columns))
        for name, one in profiles.items()
    ]
    say_table(head, rows, right=4)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Shows one profile, and where its figures are from."""
    if arguments.profile is None:
        profile = match_host(detect()).profile
    else:
        profile = profile_named(arguments.profile, load_profiles())
    if arguments.json:
        say_json({**msgspec.to_builtins(profile), "tags": sorted(tags_of(profile))})
        return 0
    say(f"{profile.name}: {profile.title}")
    if profile.note:
        say(f"note: {profile.note}")
    rows = [
        ("kind", profile.kind),
        ("machines", _words(profile.machines)),
        ("tags", _words(sorted(tags_of(profile)))),
        ("runtimes", _words(profile.runtimes)),
        ("execution providers", _words(profile.providers)),
        ("TFLite delegates", _words(profile.delegates)),
        ("threads", str(profile.threads)),
    ]
    say_table(("", "THIS DEVICE"), rows)
    known = profile.known()
    if not known:
        say("no figures: nobody can know them of a generic profile")
        return 0
    say("")
    say_table(
        ("FIGURE", "VALUE", "SOURCE", "NOTE"),
        [
            (UNITS[name][0], _amount(profile, name), figure.source, figure.note)
            for name, figure in known.items()
        ],
    )
    say("")
    for name, source in profile.sources.items():
        unread = "" if source.read else f" {NOT_READ}"
        say(f"{name}: {source.title} ({source.dated}){unread} {source.url}".rstrip())
    return 0


def _amount(profile: Profile, name: str) -> str:
    value = profile.value(name)
    _, divisor, unit = UNITS[name]
    return "-" if value is None else f"{value / divisor:.5g} {unit}".rstrip()


def _words(found: Iterable[str]) -> str:
    return ", ".join(found) or "-"


def _rows(matched: Matched, state: State) -> Iterable[tuple[str, str]]:
    host = matched.host
    yield "profile", str(matched)
    yield "host", str(host)
    yield "tags", _words(sorted(matched.tags))
    if host.nvidia:
        yield "NVIDIA", _words(host.nvidia)
    if host.l4t:
        yield "Linux for Tegra", host.l4t
    yield "cores that may be used", f"{host.usable_cores:g}"
    memory = f"{matched.memory_bytes / _GIB:.2f} GiB" if matched.memory_bytes else "not told"
    yield "memory that counts", memory
    yield "governor", state.governor or "not told"
    if state.clock_mhz is not None:
        yield "clock", f"{state.clock_mhz:.0f} MHz"
    known_c = state.temperature_c is not None
    yield "temperature", f"{state.temperature_c:.1f} degrees C" if known_c else "not told"
    yield "held back now", _words(state.throttled_now)
    yield "held back since start", _words(state.throttled_before)


def _detected(matched: Matched, state: State) -> dict[str, Any]:
    host = matched.host
    return {
        "profile": matched.profile.name,
        "is_exact": matched.is_exact,
        "accelerators": [one.name for one in matched.accelerators],
        "tags": sorted(matched.tags),
        "machine": host.machine,
        "board": host.board,
        "cpu": host.cpu,
        "features": list(host.features),
        "nvidia": list(host.nvidia),
        "l4t": host.l4t,
        "num_cores": host.num_cores,
        "usable_cores": host.usable_cores,
        "memory_bytes": host.memory_bytes,
        "memory_limit_bytes": host.limits.memory_bytes,
        "memory_that_counts_bytes": matched.memory_bytes,
        "state": msgspec.to_builtins(state),
        "notes": list(matched.notes),
    }
