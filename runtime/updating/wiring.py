"""A process's updater, put together from settings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from hardware_profiles.detect import detect
from hardware_profiles.matching import match_host
from runtime.adapters.http_mirror import HttpMirror
from runtime.core.releases import Release
from runtime.exchange.assembly import Assembly
from runtime.exchange.loading import engine_options
from runtime.exchange.serving import Served, Serving
from runtime.manifest import ModelManifest
from runtime.updating.candidate import Candidate, OpenCandidate
from runtime.updating.counting import WatchedLog
from runtime.updating.exchange import Exchange
from runtime.updating.fetching import Fetcher, Sources
from runtime.updating.place import Place
from runtime.updating.settings import UpdateSettings
from runtime.updating.shelf import Loaded, Shelf
from runtime.updating.telling import Teller
from runtime.updating.updater import Updater


def sources_of(settings: UpdateSettings) -> Sources:
    """Gateways over HTTP, and whom the catalogue names for assignments.

    Raises:
        StartError: a URL is none.
    """
    return Sources(HttpMirror(settings.urls), lambda catalogue: catalogue.rollout_keys)


def with_hardware(settings: UpdateSettings, root: Path = Path("/")) -> UpdateSettings:
    """The settings with the tags of this machine, where they name none.

    Raises:
        SettingsError: the hardware profiles that come with Tierwise cannot be read.
    """
    if settings.hardware:
        return settings
    tags = " ".join(sorted(match_host(detect(root)).tags))
    return msgspec.structs.replace(settings, hardware=tags)


def watched(assembly: Assembly, loaded: Loaded) -> Served:
    """What answers with a model of the shelf; what its requests come to is counted."""
    model = loaded.model
    log = WatchedLog(assembly.parts.log, lambda: model.counts)
    return assembly.build(loaded.model, loaded.gearbox, release=loaded.release, log=log)


def updater_of(
    place: Place,
    assembly: Assembly,
    shelf: Shelf,
    serving: Serving,
    *,
    sources: Sources,
    open_candidate: OpenCandidate | None = None,
) -> Updater:
    """The updater of a process.

    Raises:
        StartError: the root of the catalogue cannot be read.
    """
    place = replace(place, updates=with_hardware(place.updates))
    parts, limits = assembly.parts, place.updates
    clock, metrics = parts.clock, parts.metrics.updates
    exchange = Exchange(
        shelf,
        serving,
        partial(watched, assembly),
        longest_wait_s=limits.refresh_interval_s,
        clock=clock,
        metrics=metrics,
    )
    if shelf.second is not None:
        exchange.resume(shelf.second)
    fetcher = Fetcher(place, shelf, sources, clock=clock, metrics=metrics)
    teller = Teller(
        parts.identity,
        parts.epoch,
        limits.hardware,
        post=parts.storage.outbox.post,
        serving=lambda: (serving.current.release, serving.current.model.manifest),
        watches=lambda: updater.watches,
        clock=clock,
        metrics=metrics,
    )

    def opened(release: Release, folder: Path, serves: ModelManifest) -> Candidate:
        limit_mb = limits.memory_limit_mb
        engine = engine_options(place.model)
        return Candidate(
            release, folder, serves, memory_limit_mb=limit_mb, clock=clock, engine=engine
        )

    updater = Updater(
        place,
        exchange=exchange,
        fetcher=fetcher,
        teller=teller,
        clock=clock,
        metrics=metrics,
        open_candidate=open_candidate or opened,
    )
    return updater
