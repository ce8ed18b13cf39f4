"""Entries of the catalogue: the same bytes for the same entry, and none that is no entry."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from runtime.catalogue import (
    MAX_ENTRY_BYTES,
    CatalogueEntry,
    Requirements,
    Variant,
    check_name,
    decode_entry,
    encode_entry,
    entry_path,
    parse_path,
)
from runtime.errors import ArtifactError
from runtime.manifest import ModelFile
from runtime.messages import Tier


def file(name: str, size_bytes: int = 10) -> ModelFile:
    return ModelFile(hashlib.sha256(name.encode()).hexdigest(), size_bytes)


def variant(name: str = "a") -> Variant:
    files = {"manifest.json": file(f"manifest {name}"), "m.onnx": file(name, 20)}
    return Variant(files, Requirements(("aarch64",), ("onnxruntime",), {"onnxruntime": "1.20"}))


def entry(**changes: object) -> CatalogueEntry:
    fields: dict[str, object] = {
        "model": "m",
        "version": 3,
        "tier": Tier.EDGE,
        "variants": {"a": variant()},
    }
    return CatalogueEntry(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("region", [None, "eu"])
def test_an_entry_is_read_as_it_was_written(region: str | None) -> None:
    one = entry(region=region, variants={"b": variant("b"), "a": variant()})

    assert decode_entry(encode_entry(one), one.path) == one


def test_the_order_of_what_it_was_made_from_does_not_matter() -> None:
    a, b = variant("a"), variant("b")

    assert encode_entry(entry(variants={"a": a, "b": b})) == encode_entry(
        entry(variants={"b": b, "a": a})
    )


def test_a_variant_is_a_release() -> None:
    release = entry().release("a")

    assert (release.model, release.version) == ("m", 3)
    assert release.name == file("manifest a").sha256
    assert set(release.files) == {"m.onnx"}
    assert variant().size_bytes == 30


def test_unknown_fields_are_skipped() -> None:
    later = msgspec.json.decode(encode_entry(entry())) | {"colour": "green"}

    assert decode_entry(msgspec.json.encode(later), "m/3.json") == entry()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "../m"},
        {"model": ""},
        {"version": 0},
        {"version": 2**53},
        {"version": 1.5},
        {"tier": "moon"},
        {"variants": {}},
        {"variants": {"../a": msgspec.to_builtins(variant())}},
        {"variants": {str(n): msgspec.to_builtins(variant(str(n))) for n in range(17)}},
        {"variants": {"a": {"files": {"m.onnx": msgspec.to_builtins(file("a"))}}}},
        {"variants": {one: msgspec.to_builtins(variant()) for one in "ab"}},
        {"region": "e/u"},
        {"notes": "x" * 4097},
        {"format": 2},
    ],
)
def test_what_contradicts_itself_is_no_entry(changes: dict[str, object]) -> None:
    fields = msgspec.json.decode(encode_entry(entry())) | changes

    with pytest.raises(ArtifactError):
        decode_entry(msgspec.json.encode(fields), "m/3.json")


@pytest.mark.parametrize("contents", [b"", b"{}", b"\xff", b"[" * 50_000, b" " * 70_000])
def test_garbage_is_no_entry(contents: bytes) -> None:
    with pytest.raises(ArtifactError):
        decode_entry(contents, "m/3.json")


def test_one_digest_with_two_sizes_is_no_release() -> None:
    files = {"manifest.json": file("x"), "a.onnx": file("y", 1), "b.onnx": file("y", 2)}

    with pytest.raises(ValueError, match="two sizes"):
        entry(variants={"a": Variant(files)})


@pytest.mark.parametrize("path", ["m/2.json", "n/3.json", "region/eu/m/3.json"])
def test_an_entry_under_another_path_is_refused(path: str) -> None:
    with pytest.raises(ArtifactError, match="wrong name"):
        decode_entry(encode_entry(entry()), path)


def test_an_entry_that_readers_would_not_take_is_not_written() -> None:
    files = {f"{number:0100}.onnx": file(str(number)) for number in range(255)}
    variants = {name: Variant(files | {"manifest.json": file(name)}) for name in ("a", "b", "c")}

    with pytest.raises(ArtifactError, match=str(MAX_ENTRY_BYTES)):
        encode_entry(entry(variants=variants))


@pytest.mark.parametrize(("model", "version", "region"), [("m", 1, None), ("m.n", 12, "eu")])
def test_paths_are_read_as_they_were_made(model: str, version: int, region: str | None) -> None:
    found = parse_path(entry_path(model, version, region))

    assert (found.model, found.version, found.region) == (model, version, region)


@pytest.mark.parametrize(
    "path", ["", "m", "m/01.json", "m/x.json", "a/b/1.json", "region/eu/1.json/", "m/1.json\n"]
)
def test_other_paths_are_none(path: str) -> None:
    with pytest.raises(ArtifactError):
        parse_path(path)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a b", "x" * 129])
def test_names_that_no_path_may_have_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match="no name"):
        check_name(name)
