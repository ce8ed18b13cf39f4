"""Looks for what would go wrong on this machine, and says how to mend it.

``ok``: fine. ``warning``: something will not work as well, or only some things will. ``problem``:
the place that was asked about cannot work.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from hardware_profiles.detect import detect
from hardware_profiles.matching import match_host
from model_zoo.catalog import bundled_model
from runtime.adapters.artifacts import open_model
from runtime.adapters.broker import start_broker
from runtime.adapters.dial import dial
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_members
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.core.providers import AUTO
from runtime.errors import ArtifactError, BackendError, SettingsError, StartError
from runtime.exchange.loading import engine_options
from runtime.exchange.station import broker_address
from runtime.messages import USUAL_TIERS

OLDEST_PYTHON = (3, 11)
CONNECT_S = 3.0
MIN_FREE_BYTES = 256 * 1024 * 1024
LOW_FREE_BYTES = 1024 * 1024 * 1024
# 1 January 2025: a clock before it has lost its battery and has not heard of NTP yet.
EARLIEST_WALL_S = 1_735_689_600.0
CLOCK_SAMPLE_S = 0.05
CLOCK_TOLERANCE_S = 0.02

REINSTALL = "install again: pip install --force-reinstall tierwise"

PRODUCT = (
    "tierwise", "runtime", "edge_agent", "regional_gateway", "cloud_tier", "model_zoo",
    "hardware_profiles",
)  # fmt: skip
# Distribution to the name that it is imported by.
CORE = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "msgspec": "msgspec",
    "paho-mqtt": "paho.mqtt",
    "aiohttp": "aiohttp",
    "structlog": "structlog",
    "prometheus-client": "prometheus_client",
}
EXTRAS = {
    "demo": ("iotcore", "rich"),
    "tflite": ("ai-edge-litert",),
    "completion": ("shtab",),
    "zoo": ("torch", "onnx", "onnxscript"),
}


class Finding(NamedTuple):
    """What one check found; ``remedy`` says what to do, where there is something to do."""

    check: str
    status: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What a process on this machine would use; the defaults are a plain installation.

    ``brokers`` maps what a broker is for to its address. ``is_configured``: somebody has named
    these brokers, so one that cannot be reached is a problem and not just one that is not there.
    """

    brokers: tuple[tuple[str, BrokerAddress], ...] = (("broker", BrokerAddress("127.0.0.1")),)
    is_configured: bool = False
    state_folder: Path = Path("state")
    model_folder: Path | None = None
    engine: EngineOptions = EngineOptions(providers=(AUTO,))  # noqa: RUF009 - a frozen value


def place_of(settings: msgspec.Struct) -> Place:
    """What a tier with these settings would use.

    Raises:
        StartError: its broker's address cannot be used.
    """
    shown: Any = settings
    brokers = [("broker", broker_address(shown.broker))]
    upstream = getattr(shown, "upstream", None)
    if upstream is not None and upstream.enabled:
        brokers.append(("upstream broker", broker_address(upstream.broker)))
    return Place(
        brokers=tuple(brokers),
        is_configured=True,
        state_folder=Path(shown.state.folder),
        model_folder=Path(shown.model.folder) if shown.model.folder else None,
        engine=engine_options(shown.model),
    )


def examine(place: Place) -> list[Finding]:
    """All findings, in the order in which one would look."""
    findings = [check_python(), check_packages(), check_extras(), *check_names(), check_hardware()]
    findings += [
        check_broker(purpose, address, is_configured=place.is_configured)
        for purpose, address in place.brokers
    ]
    findings += [
        check_local_broker(),
        check_models(place.model_folder),
        check_engines(place.model_folder, place.engine),
        check_clock(),
        check_state_folder(place.state_folder),
        check_disk(place.state_folder),
    ]
    return findings


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether this Python is new enough."""
    text = ".".join(str(part) for part in version)
    if version[:2] >= OLDEST_PYTHON:
        return Finding("python", "ok", f"{text} on {platform.machine()}, {sys.executable}")
    return Finding("python", "problem", text, "Tierwise needs Python 3.11 or newer")


def check_packages() -> Finding:
    """Whether the core packages are there and can be imported."""
    versions, broken = [], []
    for distribution, module in CORE.items():
        try:
            importlib.import_module(module)
            versions.append(f"{distribution} {metadata.version(distribution)}")
        except (ImportError, metadata.PackageNotFoundError) as error:
            broken.append(f"{distribution} ({error})")
    if broken:
        remedy = REINSTALL
        return Finding("packages", "problem", f"not usable: {', '.join(broken)}", remedy)
    return Finding("packages", "ok", ", ".join(versions))


def check_extras() -> Finding:
    """Which extras are there; all of them are optional."""
    shown = []
    for extra, distributions in EXTRAS.items():
        missing = [name for name in distributions if _version(name) is None]
        if missing:
            shown.append(f"{extra}: no {', '.join(missing)}")
        else:
            shown.append(f"{extra}: {', '.join(f'{n} {_version(n)}' for n in distributions)}")
    return Finding("extras", "ok", "; ".join(shown))


def check_names(folder: Path = Path(__file__).parents[1]) -> Iterator[Finding]:
    """Who owns the import names of the product: ours, or a stranger's, found first.

    Args:
        folder: Where the product's packages lie.
    """
    owners = metadata.packages_distributions()
    strangers = []
    for name in PRODUCT:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        if not places:
            strangers.append(f"`{name}` is missing")
        elif Path(places[0]).resolve() != (folder / name).resolve():
            strangers.append(f"`{name}` is imported from {places[0]}")
        strangers += [
            f"`{name}` is also installed by {owner}"
            for owner in sorted(set(owners.get(name, [])))
            if owner != "tierwise"
        ]
    if strangers:
        remedy = (
            "rename or move what is in the way, or run from another folder; "
            "in a virtual environment of its own, Tierwise shares no names"
        )
        yield Finding("import names", "problem", "; ".join(strangers), remedy)
    else:
        source = "" if "runtime" in owners else " (sources, not an installation)"
        yield Finding("import names", "ok", f"all in {folder}{source}")


def check_hardware(root: Path = Path("/")) -> Finding:
    """Which profile this host has."""
    try:
        matched = match_host(detect(root))
    except SettingsError as error:
        return Finding("hardware", "problem", str(error), REINSTALL)
    # That no profile matches, which comes first, its name says already.
    notes = matched.notes[not matched.is_exact :]
    told = "; ".join((str(matched), str(matched.host), *notes))
    return Finding("hardware", "ok", told)


def check_broker(purpose: str, address: BrokerAddress, *, is_configured: bool) -> Finding:
    """Whether a broker takes an MQTT 5 connection, and small messages leave at once."""
    try:
        is_nodelay = asyncio.run(_connect(address))
    except (OSError, TimeoutError) as error:
        found = f"nobody answers at {address}: {error or 'no answer in time'}"
        if is_configured:
            remedy = "start the broker there, or set broker.host and broker.port to where it is"
            return Finding(purpose, "problem", found, remedy)
        return Finding(purpose, "ok", f"{found}; nobody asked for one")
    except StartError as error:
        remedy = "check user name, password, TLS files and whether the broker speaks MQTT 5"
        return Finding(purpose, "problem", str(error), remedy)
    if not is_nodelay:
        remedy = "set TCP_NODELAY; without it each small message may wait 40 ms"
        return Finding(purpose, "warning", f"{address} takes MQTT 5, but delays", remedy)
    return Finding(purpose, "ok", f"{address} takes MQTT 5 connections; TCP_NODELAY is set")


async def _connect(address: BrokerAddress) -> bool:
    """Connects; whether TCP_NODELAY is set on such a connection.

    Raises:
        OSError: there is no connection.
        StartError: there is one, but MQTT 5 does not work over it.
    """
    tls = address.tls.context() if address.tls else None
    async with asyncio.timeout(CONNECT_S):
        with await dial(address, tls) as connection:
            is_nodelay = bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    bus = PahoBus(address, client_id=f"tierwise-doctor-{os.getpid()}")
    await bus.start()
    try:
        if not await bus.wait_connected(CONNECT_S):
            raise StartError(f"{address} is reached, but does not let us in over MQTT 5")
    finally:
        await bus.close()
    return is_nodelay


def check_local_broker() -> Finding:
    """Which broker `tierwise demo` would start here; really starts it for a moment."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tierwise-doctor-") as folder,
            start_broker(Path(folder)) as broker,
        ):
            found = f"{broker.kind} {broker.version} starts and takes MQTT 5"
    except StartError as error:
        return Finding("local broker", "warning", str(error), "only `tierwise demo` needs one")
    return Finding("local broker", "ok", found)


def check_models(folder: Path | None) -> Finding:
    """Whether a model folder, or each of the bundled ones, holds what its manifest says."""
    try:
        folders = [folder] if folder else [bundled_model(tier) for tier in USUAL_TIERS]
        manifests = [open_model(one).manifest for one in folders]
    except ArtifactError as error:
        remedy = REINSTALL
        if folder:
            remedy = "get the model folder again, or set model.folder to where it is"
        return Finding("models", "problem", str(error), remedy)
    names = ", ".join(f"{one.tier.value} {one.name} {one.version}" for one in manifests)
    return Finding("models", "ok", f"digests agree: {names}")


def check_engines(folder: Path | None, options: EngineOptions) -> Finding:
    """What runs each member of a model folder, or of the bundled model of devices; tries them."""
    try:
        model = open_model(folder or bundled_model("edge"))
        backends = load_members(model, options)
    except (ArtifactError, BackendError) as error:
        remedy = "install what it names, or set model.providers and model.delegate otherwise"
        return Finding("engines", "problem", str(error), remedy)
    for backend in backends:
        backend.close()
    names = [member.name for member in model.manifest.members]
    reports = {name: one.report for name, one in zip(names, backends, strict=True)}
    found = "; ".join(f"{name}: {report}" for name, report in reports.items())
    if not all(report.taken for report in reports.values()):
        remedy = "look at that server, or at `url` and `model` in the manifest"
        return Finding("engines", "warning", found, remedy)
    if any(report.skipped for report in reports.values()):
        remedy = "install the driver and the build of the engine that has it, or do not wish for it"
        return Finding("engines", "warning", found, remedy)
    return Finding("engines", "ok", found)


def check_clock(
    wall_s: Callable[[], float] = time.time,
    monotonic_s: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Finding:
    """Whether the wall clock is set and steady; deadlines never use it, logs do."""
    wall, monotonic = wall_s(), monotonic_s()
    wait(CLOCK_SAMPLE_S)
    drift_s = (wall_s() - wall) - (monotonic_s() - monotonic)
    remedy = "set the clock, for example with `timedatectl set-ntp true`"
    date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall))
    if wall < EARLIEST_WALL_S:
        return Finding("clock", "problem", f"says {date}", remedy)
    if abs(drift_s) > CLOCK_TOLERANCE_S:
        return Finding("clock", "warning", f"is being moved ({drift_s * 1000:+.0f} ms)", remedy)
    return Finding("clock", "ok", date)


def check_state_folder(folder: Path) -> Finding:
    """Whether the state folder can be written to, or made."""
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        remedy = "set state.folder to one that this user may write to"
        return Finding("state folder", "problem", f"{place}: {error.strerror}", remedy)
    found = f"{folder} can be written" if place == folder else f"{folder} can be made"
    return Finding("state folder", "ok", found)


def check_disk(folder: Path) -> Finding:
    """Whether there is room for decision logs."""
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{free / 1024**3:.1f} GiB free for {folder}"
    remedy = "free some space, or lower state.decision_log_max_bytes"
    if free < MIN_FREE_BYTES:
        return Finding("disk", "problem", found, remedy)
    if free < LOW_FREE_BYTES:
        return Finding("disk", "warning", found, remedy)
    return Finding("disk", "ok", found)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
