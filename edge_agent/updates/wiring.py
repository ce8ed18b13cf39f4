"""A device's updater, put together from settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_agent.serving import Assembly, Served, Serving
from edge_agent.settings import EdgeSettings
from edge_agent.updates.candidate import Candidate, OpenCandidate
from edge_agent.updates.counting import WatchedLog
from edge_agent.updates.exchange import Exchange
from edge_agent.updates.fetching import Fetcher, Sources
from edge_agent.updates.shelf import Loaded, Shelf
from edge_agent.updates.telling import Teller
from edge_agent.updates.updater import Updater
from runtime.adapters.http_mirror import HttpMirror
from runtime.core.releases import Release
from runtime.exchange.loading import engine_options
from runtime.manifest import ModelManifest


def sources_of(settings: EdgeSettings) -> Sources:
    """Gateways over HTTP, and whom the catalogue names for assignments.

    Raises:
        StartError: a URL is none.
    """
    return Sources(HttpMirror(settings.updates.urls), lambda catalogue: catalogue.rollout_keys)


def watched(assembly: Assembly, loaded: Loaded) -> Served:
    """What answers with a model of the shelf; what its requests come to is counted."""
    log = WatchedLog(assembly.parts.log, loaded.model.watch)
    return assembly.build(loaded.model, loaded.gearbox, release=loaded.release, log=log)


def updater_of(
    assembly: Assembly,
    shelf: Shelf,
    serving: Serving,
    *,
    sources: Sources,
    open_candidate: OpenCandidate | None = None,
) -> Updater:
    """The updater of an agent.

    Raises:
        StartError: the root of the catalogue cannot be read.
    """
    settings, parts = assembly.settings, assembly.parts
    limits = settings.updates
    clock, metrics = parts.clock, parts.metrics.updates
    exchange = Exchange(
        shelf,
        serving,
        partial(watched, assembly),
        longest_wait_s=limits.refresh_interval_s,
        clock=clock,
        metrics=metrics,
    )
    fetcher = Fetcher(settings, shelf, sources, clock=clock, metrics=metrics)
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
        engine = engine_options(settings.model)
        return Candidate(
            release, folder, serves, memory_limit_mb=limit_mb, clock=clock, engine=engine
        )

    updater = Updater(
        settings,
        exchange=exchange,
        fetcher=fetcher,
        teller=teller,
        clock=clock,
        metrics=metrics,
        open_candidate=open_candidate or opened,
    )
    return updater
