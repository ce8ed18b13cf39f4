from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.models import manifest_of
from runtime.errors import ArtifactError
from runtime.manifest import (
    Measured,
    Member,
    ModelFile,
    ModelManifest,
    Provenance,
    decode_manifest,
    encode_manifest,
)
from runtime.messages import TensorSpec, Tier

MANIFEST = manifest_of({"a.onnx": b"a", "b.onnx": b"bb"})


def changed(**fields: object) -> bytes:
    """The manifest's JSON with some fields replaced."""
    return json.dumps(json.loads(encode_manifest(MANIFEST)) | fields).encode()


def test_a_manifest_survives_writing_and_reading() -> None:
    full = msgspec.structs.replace(
        MANIFEST,
        min_runtime={"onnxruntime": "1.20"},
        measured=Measured(0.9, 100, 0.1, 0.01, 1000, 3, 0.91, 0.7, 0.99),
        provenance=Provenance("pictures", "MIT", 20, "build", {"numpy": "2"}, "cpu", 2, "int8"),
    )

    assert decode_manifest(encode_manifest(full), "m") == full


@given(
    accept_at=st.floats(0, 1),
    temperature=st.floats(0.01, 100),
    tier=st.sampled_from(Tier),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
)
def test_every_valid_manifest_survives_writing_and_reading(
    accept_at: float, temperature: float, tier: Tier, weights: list[float]
) -> None:
    manifest = msgspec.structs.replace(
        MANIFEST,
        accept_at=accept_at,
        temperature=temperature,
        tier=tier,
        members=tuple(Member(f"m{i}", "a.onnx", weight) for i, weight in enumerate(weights)),
    )

    assert decode_manifest(encode_manifest(manifest), "m") == manifest


def test_the_same_manifest_is_always_the_same_bytes() -> None:
    other = msgspec.structs.replace(MANIFEST, files=dict(reversed(MANIFEST.files.items())))

    assert encode_manifest(other) == encode_manifest(MANIFEST)


def test_fields_of_a_newer_version_are_skipped() -> None:
    assert decode_manifest(changed(invented_later={"a": 1}), "m") == MANIFEST


def test_the_size_is_that_of_all_files() -> None:
    assert MANIFEST.size_bytes == 3


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"version": None}, "version"),
        ({"tier": "basement"}, "tier"),
        ({"task": "chess"}, "task"),
        ({"accept_at": 1.5}, "accept_at"),
        ({"accept_at": -0.1}, "accept_at"),
        ({"temperature": 0}, "temperature"),
        ({"labels": ["only"]}, "labels"),
        ({"labels": ["a", "b", "c"]}, "3 labels, but 'logits' gives 2 scores"),
        ({"labels": ["twice", "twice"]}, "the label 'twice' is there twice"),
        ({"files": {}}, "files"),
        ({"files": {"a.onnx": {"sha256": "abc", "size_bytes": 1}}}, "sha256"),
        ({"files": {"a.onnx": {"sha256": "0" * 64, "size_bytes": 0}}}, "size_bytes"),
        ({"members": []}, "members"),
        ({"members": [{"name": "c", "file": "c.onnx"}]}, "files that `files` does not list"),
        ({"members": [{"name": "a", "file": "a.onnx"}] * 2}, "member 'a' is there twice"),
        ({"members": [{"name": "a", "file": "a.onnx", "weight": 0}]}, "weight"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(
        ArtifactError, match=r"folder/manifest\.json is not a model manifest"
    ) as info:
        decode_manifest(changed(**fields), "folder/manifest.json")

    assert complaint in str(info.value)


@pytest.mark.parametrize("name", ["../a.onnx", "/etc/passwd", "a/b", "..", ".hidden", "", "a\n"])
def test_a_file_name_cannot_point_out_of_its_folder(name: str) -> None:
    entry = {"sha256": "0" * 64, "size_bytes": 1}

    with pytest.raises(ArtifactError):
        decode_manifest(changed(files={name: entry}), "m")


@pytest.mark.parametrize("contents", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"<html></html>"])
def test_what_is_no_manifest_at_all_is_refused(contents: bytes) -> None:
    with pytest.raises(ArtifactError, match="m is not a model manifest"):
        decode_manifest(contents, "m")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(contents: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode_manifest(contents, "m")


def test_scores_of_an_output_without_axes_fit_no_labels() -> None:
    with pytest.raises(ValueError, match="gives 0 scores"):
        manifest_of({"a.onnx": b"a"}, outputs=(TensorSpec("logits", "FP32", ()),))


def test_a_temperature_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        manifest_of({"a.onnx": b"a"}, temperature=float("inf"))


def test_a_manifest_is_readable_json() -> None:
    text = encode_manifest(MANIFEST).decode()

    assert '\n  "accept_at": 0.8' in text
    assert text.endswith("}\n")


def test_a_file_entry_needs_a_whole_digest() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"sha256": "A" * 64, "size_bytes": 1}, ModelFile)


def test_an_optional_figure_may_be_missing() -> None:
    assert isinstance(MANIFEST, ModelManifest)
    assert MANIFEST.measured is None
    assert b"measured" not in encode_manifest(MANIFEST)
