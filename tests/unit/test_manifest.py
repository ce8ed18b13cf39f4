from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.models import manifest_of
from model_zoo.catalog import bundled_model, bundled_policy
from runtime.errors import ArtifactError
from runtime.manifest import (
    INTEGERS,
    Measured,
    Member,
    ModelFile,
    ModelManifest,
    Provenance,
    Quantization,
    QuantizedType,
    decode_manifest,
    encode_manifest,
    model_digest,
)
from runtime.messages import Residency, TensorSpec, Tier

MANIFEST = manifest_of({"a.onnx": b"a", "b.onnx": b"bb"})
SERVER = {"name": "a", "url": "http://triton:8000", "model": "fashion"}
INT8 = {"datatype": "INT8", "scale": 0.5, "zero_point": -3}
WHOLE = {"name": "n", "datatype": "INT32", "shape": [1]}
LOGITS = {"name": "logits", "datatype": "FP32", "shape": [-1, 2]}


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
        ({"members": [{"name": "a"}]}, "either a `file`, or `url` and `model`"),
        ({"members": [{"name": "a", "url": "http://a"}]}, "either a `file`"),
        ({"members": [{"name": "a", "model": "m"}]}, "either a `file`"),
        ({"members": [{"name": "a", "file": "a.onnx", "url": "http://a"}]}, "either a `file`"),
        ({"members": [{"name": "a", "file": "a.onnx", "model": "m"}]}, "either a `file`"),
        ({"members": [{"name": "a", "file": "a.onnx", "version": "1"}]}, "either a `file`"),
        ({"members": [SERVER | {"model": "a/b"}]}, "model"),
        ({"members": [SERVER | {"version": "../1"}]}, "version"),
        ({"members": [SERVER | {"residency": "moon"}]}, "residency"),
        ({"members": [SERVER | {"url": "a" * 2000}]}, "url"),
        ({"quantization": {"x": INT8 | {"datatype": "INT4"}}}, "INT4"),
        ({"quantization": {"x": INT8 | {"scale": 0}}}, "scale"),
        ({"quantization": {"x": INT8 | {"scale": -1.0}}}, "scale"),
        ({"quantization": {"x": INT8 | {"scale": 1e-40}}}, "scale"),
        ({"quantization": {"x": INT8 | {"scale": [0.1, 0.2]}}}, "scale"),
        ({"quantization": {"x": INT8 | {"zero_point": 128}}}, "128 of INT8 is not in -128 .. 127"),
        ({"quantization": {"x": INT8 | {"zero_point": 0.5}}}, "zero_point"),
        ({"quantization": {"other": INT8}}, "'other', which is not one input or output"),
        ({"quantization": {"n": INT8}, "inputs": [WHOLE]}, "'n', which is not one input or"),
        ({"quantization": {"logits": INT8}, "inputs": [LOGITS]}, "'logits', which is not one"),
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


@pytest.mark.parametrize(
    ("member", "engine"),
    [
        (Member("a", "a.onnx"), "onnxruntime"),
        (Member("a", "a.v2.TFLITE"), "litert"),
        (Member("a", url="http://triton:8000", model="m"), "oip"),
    ],
)
def test_the_engine_follows_from_the_file(member: Member, engine: str) -> None:
    assert member.engine == engine


@pytest.mark.parametrize("file", ["a.pt", "onnx.", "model", "a.onnx.gz"])
def test_a_file_of_no_engine_is_refused_when_it_is_to_run(file: str) -> None:
    with pytest.raises(ArtifactError, match=r"nothing here runs .*a \.onnx or a \.tflite file"):
        _ = Member("a", file).engine


def test_a_model_of_servers_alone_has_no_files() -> None:
    manifest = decode_manifest(changed(files={}, members=[SERVER | {"version": "3"}]), "m")

    (member,) = manifest.members
    assert (member.url, member.model, member.version) == ("http://triton:8000", "fashion", "3")
    assert member.residency is Residency.CLOUD
    assert manifest.member_files == []
    assert manifest.size_bytes == 0
    assert decode_manifest(encode_manifest(manifest), "m") == manifest


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://host/x", "not the http"),
        ("file:///etc/passwd", "not the http"),
        ("triton:8000", "not the http"),
        ("http://", "not the http"),
        ("http:///models", "not the http"),
        ("http://host/a?b=c", "not the http"),
        ("http://host/#a", "not the http"),
        ("http://ho st/", "not the http"),
        ("http://host/\n", "not the http"),
        ("http://hôst/", "not the http"),
        ("http://user:secret@host/", "must not have a user name or a password"),
        ("http://host:0/", "the port 0"),
        ("http://host:99999/", "[Pp]ort"),
        ("http://[::1/", "IPv6"),
    ],
)
def test_a_url_that_is_no_place_of_a_server_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        decode_manifest(changed(files={}, members=[SERVER | {"url": url}]), "m")


@pytest.mark.parametrize("url", ["https://host", "http://10.0.0.1:8000/serving/a", "http://[::1]/"])
def test_a_server_may_be_anywhere(url: str) -> None:
    manifest = decode_manifest(changed(files={}, members=[SERVER | {"url": url}]), "m")

    assert manifest.members[0].url == url


def test_quantized_edges_survive_writing_and_reading() -> None:
    manifest = decode_manifest(
        changed(quantization={"x": INT8, "logits": INT8 | {"datatype": "UINT8", "zero_point": 9}}),
        "m",
    )

    assert manifest.quantization["x"] == Quantization("INT8", 0.5, -3)
    assert decode_manifest(encode_manifest(manifest), "m") == manifest


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-31, 1e31])
def test_a_scale_that_cannot_be_one_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="a scale must lie in"):
        Quantization("INT8", scale)


@pytest.mark.parametrize("datatype", INTEGERS)
def test_a_zero_point_is_one_of_the_integers(datatype: QuantizedType) -> None:
    low, high = INTEGERS[datatype]

    for inside in (low, high):
        assert Quantization(datatype, 1.0, inside).zero_point == inside
    for outside in (low - 1, high + 1):
        with pytest.raises(ValueError, match="the zero point"):
            Quantization(datatype, 1.0, outside)


def test_the_digest_of_a_manifest_from_before_is_what_it_was() -> None:
    """The shipped policy is bound to the shipped manifests by these digests."""
    policy = bundled_policy()
    assert policy is not None
    models = json.loads(policy.read_bytes())["models"]

    for tier, digest in models.items():
        contents = (bundled_model(tier) / "manifest.json").read_bytes()
        assert model_digest(decode_manifest(contents, tier)) == digest


def test_the_digest_changes_with_quantization_and_with_the_server() -> None:
    server = Member("a", url="http://triton:8000", model="m", version="1")
    changes: list[dict[str, object]] = [
        {},
        {"quantization": {"x": Quantization("INT8", 0.5)}},
        {"quantization": {"x": Quantization("INT8", 0.25)}},
        {"quantization": {"x": Quantization("INT8", 0.5, 1)}},
        {"quantization": {"x": Quantization("UINT8", 0.5)}},
        {"members": (server,)},
        {"members": (msgspec.structs.replace(server, url="http://other:8000"),)},
        {"members": (msgspec.structs.replace(server, model="n"),)},
        {"members": (msgspec.structs.replace(server, version="2"),)},
    ]

    digests = {model_digest(msgspec.structs.replace(MANIFEST, **one)) for one in changes}

    assert len(digests) == len(changes)
