"""Picks the engine of each member of a model: ONNX Runtime, LiteRT, or somebody's server.

Rules of this file:
  * the engine follows from the member (``runtime.manifest.Member.engine``); what it runs on, from
    the options, with the CPU behind every accelerator;
  * an engine that is an extra is imported only for a member that needs it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runtime.adapters import onnx_backend
from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.bound_backend import BoundBackend
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.fallback_backend import FallbackBackend
from runtime.adapters.model_worker import TimedBackend
from runtime.manifest import Engine, Member


def load_member(
    model: ModelFolder, member_name: str, options: EngineOptions | None = None
) -> TimedBackend:
    """The backend of one member of a verified model folder.

    Raises:
        ArtifactError: the file is not what the manifest says, its engine is missing or too old, or
            a server has another model.
        BackendError: the warm-up failed.
        KeyError: the manifest names no such member.
    """
    options = options or EngineOptions()
    member = {member.name: member for member in model.manifest.members}[member_name]
    engine = _engine(model, member, options)
    if not member.inputs:
        return engine
    return BoundBackend(engine, member, model.manifest)


def _engine(model: ModelFolder, member: Member, options: EngineOptions) -> TimedBackend:
    load = _LOADERS[member.engine]
    first = load(model, member, options)
    if not first.report.is_accelerated:
        return first
    on_cpu = msgspec.structs.replace(options, providers=("cpu",), delegate="xnnpack")
    return FallbackBackend(member.name, first, lambda: load(model, member, on_cpu))


def load_members(
    model: ModelFolder, options: EngineOptions | None = None
) -> tuple[TimedBackend, ...]:
    """The backends of all members in the manifest's order; see ``load_member``."""
    return tuple(load_member(model, member.name, options) for member in model.manifest.members)


def _onnx(model: ModelFolder, member: Member, options: EngineOptions) -> TimedBackend:
    return onnx_backend.load_member(
        model,
        member.name,
        onnx_backend.OnnxOptions(
            intra_op_threads=options.threads,
            providers=options.providers,
            preferred=options.preferred,
        ),
    )


def _litert(model: ModelFolder, member: Member, options: EngineOptions) -> TimedBackend:
    from runtime.adapters import litert_backend  # noqa: PLC0415 - an extra

    return litert_backend.load_member(
        model, member.name, threads=options.threads, delegate=options.delegate
    )


def _oip(model: ModelFolder, member: Member, options: EngineOptions) -> TimedBackend:
    from runtime.adapters import oip_backend  # noqa: PLC0415 - most models have no servers

    return oip_backend.load_member(model, member.name, run_timeout_ms=options.run_timeout_ms)


_LOADERS: dict[Engine, Callable[[ModelFolder, Member, EngineOptions], TimedBackend]] = {
    "onnxruntime": _onnx,
    "litert": _litert,
    "oip": _oip,
}
