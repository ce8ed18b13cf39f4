"""A tier's model and policy, from files to what answers; all of it off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.bound_backend import BoundBackend
from runtime.adapters.breaker_signs import BreakerSigns
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_members
from runtime.adapters.fallback_backend import FallbackBackend
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.model_process import ProcessOptions, start_members
from runtime.adapters.model_worker import TimedBackend
from runtime.adapters.off_loop import made_in_thread
from runtime.adapters.policy_file import open_gearbox
from runtime.adapters.prototypes import read_prototypes
from runtime.common_settings import ModelSettings
from runtime.core.gearbox import Gearbox
from runtime.local_model import LoadedMember, LocalModel
from runtime.manifest import ModelManifest
from runtime.messages import Tier
from runtime.ports import Clock

_log = structlog.get_logger()
AnyModel = TypeVar("AnyModel", bound=LocalModel)


async def load_gearbox(
    policy: str, settings: ModelSettings, tier: Tier, manifest: ModelManifest
) -> Gearbox:
    """The gears that a tier follows by its settings, for the model of its settings.

    Raises:
        PolicyError: the policy cannot be used, or is for another model.
    """
    path = _policy_path(policy, settings)
    if path is None:
        return Gearbox(tier)
    return await asyncio.to_thread(open_gearbox, path, tier, manifest)


def _policy_path(policy: str, model: ModelSettings) -> Path | None:
    """The policy that a tier follows; None: the threshold."""
    if policy:
        return Path(policy)
    if model.folder or model.accept_at is not None:
        return None
    # Only who runs the bundled task needs the package that holds it.
    from model_zoo.catalog import bundled_policy  # noqa: PLC0415

    return bundled_policy()


async def load_model(
    settings: ModelSettings, tier: Tier, clock: Clock, metrics: TierMetrics | None = None
) -> LocalModel:
    """Verifies, loads and warms up the model of a tier, off the event loop.

    Raises:
        ArtifactError: a file is missing, damaged, or not what the manifest says.
        BackendError: the warm-up failed.
        StartError: a process of the model ended at its start.
    """
    return await load_model_as(LocalModel, settings, tier, clock, metrics or TierMetrics(tier))


async def load_model_as(
    kind: type[AnyModel], settings: ModelSettings, tier: Tier, clock: Clock, metrics: TierMetrics
) -> AnyModel:
    """The same as another kind of model; the errors of ``load_model``."""
    return await made_in_thread(
        lambda: _load_model(settings, tier, clock, metrics, kind), LocalModel.close
    )


def _load_model(
    settings: ModelSettings, tier: Tier, clock: Clock, metrics: TierMetrics, kind: type[AnyModel]
) -> AnyModel:
    model = open_model(model_folder(settings, tier))
    # Before a process is started for nothing.
    prototypes = read_prototypes(model)
    is_isolated = settings.isolation == "process"
    options = engine_options(settings)
    backends: Sequence[TimedBackend] = (
        _processes(model, settings, options, metrics)
        if is_isolated
        else load_members(model, options)
    )
    members = [
        LoadedMember.of(
            member,
            backend,
            backend.typical_ms,
            # A server answers when it likes, and behind an accelerator may stand a slow CPU.
            may_block=is_isolated or member.file is None or backend.report.is_accelerated,
        )
        for member, backend in zip(model.manifest.members, backends, strict=True)
    ]
    for loaded, backend in zip(members, backends, strict=True):
        _tell(loaded.name, backend, metrics)
    return kind(
        model.manifest,
        members,
        clock,
        accept_at=settings.accept_at,
        on_breaker=BreakerSigns("member", metrics),
        prototypes=prototypes,
    )


def model_folder(settings: ModelSettings, tier: Tier) -> Path:
    """Where the model of the settings is."""
    if settings.folder:
        return Path(settings.folder)
    # Only who runs the bundled task needs the package that holds it.
    from model_zoo.catalog import bundled_model  # noqa: PLC0415

    return bundled_model(tier.value)


def engine_options(settings: ModelSettings) -> EngineOptions:
    """What the settings of a tier say about engines."""
    return EngineOptions(
        threads=settings.threads,
        providers=settings.wished_providers,
        delegate=settings.delegate,
        run_timeout_ms=settings.run_timeout_ms,
    )


def _tell(member: str, backend: TimedBackend, metrics: TierMetrics) -> None:
    """Says once what runs a member, and from now on when that changes."""
    report = backend.report
    _log.info("model.engine_chosen", member=member, engine=report.engine, runs_on=report.taken)
    metrics.set_engine(member, report)
    if report.skipped and report.taken:
        _log.warning("model.engine_not_used", member=member, report=str(report))
        metrics.count_engine_fallback(member, report)
    engine = backend.engine if isinstance(backend, BoundBackend) else backend
    if isinstance(engine, FallbackBackend):
        engine.on_fallback = metrics.count_engine_fallback


def _processes(
    model: ModelFolder, settings: ModelSettings, engine: EngineOptions, metrics: TierMetrics
) -> Sequence[TimedBackend]:
    options = ProcessOptions(
        engine=engine,
        memory_limit_mb=settings.memory_limit_mb,
        run_timeout_ms=settings.run_timeout_ms,
        on_end=metrics.count_process_end,
        on_fallback=metrics.count_engine_fallback,
    )
    return start_members(model, options)
