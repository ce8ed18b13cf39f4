"""What ``runtime.core.fitting`` decides on, from model folders, catalogue entries, measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from hardware_profiles.measurement import Measurement
from hardware_profiles.profile import Profile
from hardware_profiles.work import count_work
from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.catalogue import MAX_ENTRY_BYTES, CatalogueEntry, Requirements, decode_entry
from runtime.core.fitting import Candidate, Need
from runtime.core.roofline import Latency, Speed, estimate
from runtime.core.variants import version_numbers
from runtime.errors import ArtifactError
from runtime.manifest import model_digest

# A process with Python and ONNX Runtime, and what it keeps of a model: the file, the weights, and
# the weights packed. The bundled models were measured at 83 to 137 MB in all.
BASE_BYTES = 128_000_000
COPIES = 3
_SINGLE_THREAD = 1


def speed_of(profile: Profile) -> Speed | None:
    """What one thread of a device can do; None where its profile does not have the figures.

    Of one core where that is known, else an even share of all cores.
    """
    flops, num_cores = profile.value("core_flops"), profile.value("cores")
    all_flops = profile.value("cpu_flops")
    if flops is None and all_flops is not None and num_cores is not None:
        flops = all_flops / num_cores
    bytes_s, clock_mhz = profile.value("memory_bytes_s"), profile.value("clock_mhz")
    if flops is None or bytes_s is None or clock_mhz is None:
        return None
    return Speed(flops, bytes_s, clock_mhz)


def from_folder(
    name: str,
    folder: Path,
    profile: Profile,
    measurements: Collection[Measurement] = (),
    engines: Mapping[str, str] | None = None,
) -> Candidate:
    """A variant that lies in a model folder.

    Raises:
        ArtifactError: the folder is damaged, or ONNX Runtime cannot run a file of it.
    """
    model = open_model(folder)
    manifest = model.manifest
    measured = best_measurement(model_digest(manifest), profile.name, measurements, engines)
    return Candidate(
        name=name,
        size_bytes=manifest.size_bytes,
        memory=_memory(measured, manifest.size_bytes),
        requirements=Requirements(min_runtime=dict(manifest.min_runtime)),
        accuracy=manifest.measured.accuracy if manifest.measured else None,
        latency=_latency(measured) or _estimated(model, profile),
        power_w=_power_w(measured),
        caveat=_caveat(measured),
    )


def from_entry(
    entry: CatalogueEntry,
    profile: Profile,
    measurements: Collection[Measurement] = (),
    engines: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """The variants of a catalogue entry; without their files, latency is measured or not known."""
    found = []
    for name, one in entry.variants.items():
        digest = one.model_sha256 or ""
        measured = best_measurement(digest, profile.name, measurements, engines)
        found.append(
            Candidate(
                name=name,
                size_bytes=one.size_bytes,
                memory=_memory(measured, one.size_bytes),
                requirements=one.requirements,
                accuracy=one.measured.accuracy if one.measured else None,
                latency=_latency(measured),
                power_w=_power_w(measured),
                caveat=_caveat(measured),
            )
        )
    return found


def read_entry(path: Path) -> CatalogueEntry:
    """A catalogue entry in a file of any name; nothing is verified.

    Raises:
        ArtifactError: it cannot be read, or is no entry.
    """
    import msgspec  # noqa: PLC0415 - for its errors alone

    try:
        with path.open("rb") as file:
            contents = file.read(MAX_ENTRY_BYTES + 1)
        named = msgspec.json.decode(contents, type=CatalogueEntry)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is no entry of a catalogue: {error}") from error
    return decode_entry(contents, named.path)


def best_measurement(
    model_sha256: str,
    profile: str,
    measurements: Collection[Measurement],
    engines: Mapping[str, str] | None = None,
) -> Measurement | None:
    """What was measured of a model on such a device: with one thread rather than more.

    Of several, that of the installed engine, then of the newest one, then the latest.
    """
    installed = engines or {}
    found = [
        one for one in measurements if one.model_sha256 == model_sha256 and one.profile == profile
    ]

    def rank(one: Measurement) -> tuple[bool, bool, tuple[int, ...], str]:
        return (
            one.threads == _SINGLE_THREAD,
            installed.get(one.engine) == one.engine_version,
            version_numbers(one.engine_version),
            one.measured_at,
        )

    return max(found, key=rank, default=None)


def _memory(measured: Measurement | None, size_bytes: int) -> Need:
    if measured is not None and measured.peak_rss_bytes:
        return Need(measured.peak_rss_bytes, is_measured=True)
    return Need(BASE_BYTES + COPIES * size_bytes)


def _latency(measured: Measurement | None) -> Latency | None:
    if measured is None:
        return None
    for one in measured.batches:
        if one.batch == 1:
            return Latency(one.p50_ms, one.p99_ms, is_measured=True)
    return None


def _power_w(measured: Measurement | None) -> float | None:
    if measured is None or measured.energy is None or not measured.energy.is_whole_device:
        return None
    return measured.energy.power_w


def _caveat(measured: Measurement | None) -> str:
    if measured is None:
        return ""
    told = ["on a busy machine"] * measured.is_contended
    told += ["while it was held back"] * measured.is_throttled
    return f"measured {', and '.join(told)}" if told else ""


def _estimated(model: ModelFolder, profile: Profile) -> Latency | None:
    speed = speed_of(profile)
    # Operations are counted by ONNX Runtime; of other engines, measured times count alone.
    if speed is None or any(one.engine != "onnxruntime" for one in model.manifest.members):
        return None
    return estimate(count_work(model), speed)
