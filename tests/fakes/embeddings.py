"""Halves of a split model without files: an edge that forwards an embedding, tiers that take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from fakes.hierarchy import cloud, edge, gateway
from fakes.tiers import OUTPUTS, SURE, UNSURE, FakeTier, NumbersBackend, manifest
from runtime.adapters.memory_bus import MemoryBroker
from runtime.manifest import model_digest
from runtime.messages import Tensors, TensorSpec, Tier

EMBEDDING = TensorSpec("embedding", "FP32", (-1, 4))
HALF = TensorSpec("embedding", "FP16", (-1, 4))
PASSED = np.array([0.5, -1.0, 2.0, 0.25], np.float32)
# Another model's embedding, of the same shape.
OTHER = "f" * 64


def head_of(spec: TensorSpec = EMBEDDING) -> dict[str, Any]:
    """What the manifest of a head says beside the usual."""
    return {"outputs": (*OUTPUTS, spec), "forwards": spec.name}


def tail_of(*accepts: str, spec: TensorSpec = EMBEDDING, **more: Any) -> dict[str, Any]:
    """The same of a tail; it accepts the head of ``head_of`` unless others are named."""
    return {"inputs": (spec,), "accepts_from": accepts or (digest_of(Tier.EDGE, spec),), **more}


def digest_of(tier: Tier, spec: TensorSpec = EMBEDDING) -> str:
    """The digest of a head at a tier."""
    return model_digest(msgspec.structs.replace(manifest(tier), **head_of(spec)))


def head_backend(
    scores: tuple[float, ...] = UNSURE, passed: Sequence[float] | Any = PASSED, **options: Any
) -> NumbersBackend:
    """Gives scores and an embedding."""
    return NumbersBackend(scores, more={"embedding": passed}, **options)


def head(broker: MemoryBroker, backend: NumbersBackend | None = None, **options: Any) -> FakeTier:
    """A device that forwards its embedding."""
    said = options.pop("described_as", head_of())
    return edge(broker, backend or head_backend(), described_as=said, **options)


def tail(broker: MemoryBroker, *accepts: str, **options: Any) -> FakeTier:
    """A gateway above it."""
    said = options.pop("described_as", tail_of(*accepts))
    backend = options.pop("backend", NumbersBackend(SURE))
    return gateway(broker, backend, described_as=said, **options)


def top(broker: MemoryBroker, *accepts: str, **options: Any) -> FakeTier:
    """A cloud that takes the same embedding."""
    backend = options.pop("backend", NumbersBackend(SURE))
    return cloud(broker, backend, described_as=tail_of(*accepts), **options)


def asked(tier: FakeTier) -> Tensors:
    """The inputs of the only run of a tier's model."""
    (inputs,) = tier.backends[0].asked
    return inputs
