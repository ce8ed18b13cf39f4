"""Releases without contents, for decisions that look at names alone."""

from __future__ import annotations

import hashlib

from runtime.core.releases import Record, Release
from runtime.manifest import ModelFile


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def release(version: int, *, model: str = "m", edition: str = "") -> Release:
    """One of a file of its own; two with the same arguments are the same."""
    name = f"{model}-{version}-{edition}"
    return Release(
        ModelFile(digest_of(f"manifest of {name}"), 10),
        model,
        version,
        {"one.onnx": ModelFile(digest_of(name), 20)},
    )


def digests(*releases: Release) -> set[str]:
    return {digest for one in releases for digest in one.blobs}


def everything(record: Record) -> set[str]:
    return set(record.blobs)
