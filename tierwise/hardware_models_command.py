"""What ``tierwise hardware bench|fit`` do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hardware_profiles.bench import bench
from hardware_profiles.candidates import from_entry, from_folder, read_entry
from hardware_profiles.detect import detect
from hardware_profiles.matching import Matched, match_host
from hardware_profiles.measurement import Measurement, default_folder, read_all, save
from hardware_profiles.profile import Profile, tags_of
from hardware_profiles.registry import load_profiles, profile_named
from model_zoo.catalog import bundled_model
from runtime.adapters.engine_version import installed_engines
from runtime.core.fitting import Candidate, Device, Fit, Limits, fit
from runtime.errors import StartError
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

_MB = 1_000_000
_STEPS = 100


def run_bench(arguments: argparse.Namespace) -> int:
    """Times a model, and keeps what was found."""
    folder = _bench_folder(arguments)
    matched = match_host(detect())
    out = arguments.out or default_folder()
    found: list[tuple[Measurement, Path]] = []
    with progress_bar("bench") as show:
        for threads in arguments.threads or (matched.profile.threads,):
            what = f"bench: {threads} thread{'s' * (threads > 1)}"
            one = bench(
                folder,
                matched,
                threads=threads,
                batches=arguments.batch,
                seconds=arguments.seconds,
                show=lambda share, what=what: show(int(share * _STEPS), _STEPS, what),  # type: ignore[misc]
            )
            found.append((one, save(out, one)))
    if arguments.json:
        say_json([{**msgspec.to_builtins(one), "file": str(path)} for one, path in found])
        return 0
    for one, path in found:
        _say_measurement(one, path)
    return 0


def run_fit(arguments: argparse.Namespace) -> int:
    """Says which variant fits, and why the others do not; exit code 1 where none does."""
    matched = match_host(detect())
    here = arguments.profile in {None, matched.profile.name}
    profile = matched.profile if here else profile_named(arguments.profile, load_profiles())
    measurements, complaints = read_all(arguments.out or default_folder())
    for complaint in complaints:
        note(f"note: {complaint}")
    engines = installed_engines()
    candidates = _candidates(arguments, profile, measurements, engines)
    device = _device(matched, engines) if here else _other_device(profile, engines)
    max_mb = arguments.max_memory_mb
    limits = Limits(
        budget_ms=arguments.budget_ms,
        min_accuracy=arguments.min_accuracy,
        max_memory_bytes=None if max_mb is None else round(max_mb * _MB),
        power_w=arguments.power_w,
    )
    found = fit(candidates, device, limits)
    notes = list(matched.notes) if here else ["engines are supposed to be those of this host"]
    notes += [f"{one.name} was {one.caveat}" for one in candidates if one.caveat]
    if arguments.json:
        say_json(_fit_as_json(found, candidates, profile, device, notes))
    else:
        _say_fit(found, candidates, profile, notes)
    return 0 if found.chosen else 1


def _bench_folder(arguments: argparse.Namespace) -> Path:
    if arguments.model:
        if arguments.variant:
            raise StartError("--variant is a folder below --folder; bundled models have none")
        return bundled_model(arguments.model)
    folder: Path = arguments.folder
    return folder / arguments.variant if arguments.variant else folder


def _candidates(
    arguments: argparse.Namespace,
    profile: Profile,
    measurements: tuple[Measurement, ...],
    engines: dict[str, str],
) -> list[Candidate]:
    folders = [(tier, bundled_model(tier)) for tier in arguments.model]
    folders += [(arguments.folder.name or "folder", arguments.folder)] if arguments.folder else []
    folders += arguments.variant
    found = [from_folder(name, one, profile, measurements, engines) for name, one in folders]
    if arguments.entry:
        found += from_entry(read_entry(arguments.entry), profile, measurements, engines)
    if not found:
        raise StartError("fit what? give --model, --folder, --variant NAME=DIR or --entry FILE")
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StartError(f"the variant {twice[0]!r} is given twice")
    return found


def _device(matched: Matched, engines: dict[str, str]) -> Device:
    return Device(
        hardware=matched.tags,
        runtimes=tuple(engines),
        engines=engines,
        memory_bytes=matched.memory_bytes,
        max_w=_max_w(matched.profile),
    )


def _other_device(profile: Profile, engines: dict[str, str]) -> Device:
    return Device(
        hardware=tags_of(profile),
        runtimes=profile.runtimes,
        engines={name: version for name, version in engines.items() if name in profile.runtimes},
        memory_bytes=int(profile.value("memory_bytes") or 0),
        max_w=_max_w(profile),
    )


def _max_w(profile: Profile) -> float | None:
    return profile.value("max_w")


def _say_measurement(one: Measurement, path: Path) -> None:
    threads = f"{one.threads} thread{'s' * (one.threads > 1)}"
    say(f"{one.model} {one.version} on {one.host}, {one.engine} {one.engine_version}, {threads}")
    rows = [
        (
            str(each.batch),
            str(each.num_runs),
            f"{each.p50_ms:.3f}",
            f"{each.p90_ms:.3f}",
            f"{each.p99_ms:.3f}",
            f"{each.examples_per_s:.1f}",
        )
        for each in one.batches
    ]
    say_table(("BATCH", "RUNS", "P50 MS", "P90 MS", "P99 MS", "EXAMPLES/S"), rows, right=6)
    say(
        f"load {one.load_ms:.0f} ms; memory {one.peak_rss_bytes / _MB:.0f} MB at most, of which "
        f"{one.base_rss_bytes / _MB:.0f} MB before the engine; processor "
        f"{one.cpu_share:.0%} of the time"
    )
    if one.energy is not None:
        say(f"power {one.energy.power_w:.2f} W ({one.energy.source})")
    for told in one.notes:
        say(f"note: {told}")
    say(f"kept in {path}")


def _say_fit(found: Fit, candidates: list[Candidate], profile: Profile, notes: list[str]) -> None:
    say(f"{profile.name}: {profile.title}")
    rows = [
        (
            one.name,
            "taken" if one.name == found.chosen else "refused" if reasons else "fits",
            _latency(one),
            f"{one.memory.num_bytes / _MB:.0f} MB{'' if one.memory.is_measured else ' (est.)'}",
            "-" if one.accuracy is None else f"{one.accuracy:.2%}",
            f"{one.size_bytes}",
        )
        for one in candidates
        for reasons in [found.reasons[one.name]]
    ]
    say_table(("VARIANT", "", "LATENCY", "MEMORY", "ACCURACY", "BYTES"), rows, right=4)
    for name, text in _reasons(found):
        say(f"{name}: {text}")
    for told in notes:
        say(f"note: {told}")


def _reasons(found: Fit) -> Iterator[tuple[str, str]]:
    for name, reasons in found.reasons.items():
        for reason in reasons:
            yield name, reason.text


def _latency(one: Candidate) -> str:
    if one.latency is None:
        return "not known"
    kind = "" if one.latency.is_measured else " (est.)"
    return f"{one.latency.low_ms:.3g} to {one.latency.high_ms:.3g} ms{kind}"


def _fit_as_json(
    found: Fit, candidates: list[Candidate], profile: Profile, device: Device, notes: list[str]
) -> dict[str, Any]:
    return {
        "profile": profile.name,
        "memory_bytes": device.memory_bytes,
        "chosen": found.chosen,
        "variants": [
            {
                **msgspec.to_builtins(one),
                "refused": [msgspec.to_builtins(reason) for reason in found.reasons[one.name]],
            }
            for one in candidates
        ],
        "notes": notes,
    }
