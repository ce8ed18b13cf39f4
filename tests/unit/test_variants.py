"""Which build a device takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue import Requirements, Variant
from runtime.core.variants import NO_VARIANT, missing, pick_variant, version_numbers
from runtime.errors import ReleaseError
from runtime.manifest import ModelFile

TAGS = ("aarch64", "cuda", "jetson", "neon")
ENGINES = {"onnxruntime": "1.20.1"}


def variant(size: int = 10, **asks: Any) -> Variant:
    digest = f"{size:064x}"
    files = {
        "manifest.json": ModelFile(digest, size),
        "m.onnx": ModelFile("f" + digest[1:], 1),
    }
    return Variant(files, Requirements(**asks))


def picked(variants: dict[str, Variant], *hardware: str, engines: dict[str, str] = ENGINES) -> str:
    return pick_variant(variants, hardware=hardware, runtimes=engines.keys(), engines=engines)


def test_the_most_special_one_that_runs_here_is_taken() -> None:
    variants = {
        "any": variant(1),
        "arm": variant(2, hardware=("aarch64",)),
        "gpu": variant(3, hardware=("aarch64", "cuda")),
    }

    assert picked(variants) == "any"
    assert picked(variants, "aarch64") == "arm"
    assert picked(variants, "cuda", "aarch64", "more") == "gpu"


def test_of_two_that_ask_for_the_same_the_smaller_is_taken_then_the_name() -> None:
    assert picked({"b": variant(2), "c": variant(1)}) == "c"
    assert picked({"b": variant(1), "a": variant(1)}) == "a"


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ({"hardware": ("cuda",)}, "cuda"),
        ({"runtime": ("tensorrt",)}, "tensorrt"),
        ({"min_runtime": {"onnxruntime": "1.21"}}, "onnxruntime 1.21 (here: 1.20.1)"),
        ({"min_runtime": {"tflite": "2"}}, "tflite 2 (here: none)"),
    ],
)
def test_what_is_lacking_is_named(asks: dict[str, Any], told: str) -> None:
    with pytest.raises(ReleaseError, match="no variant runs") as caught:
        picked({"x": variant(**asks)})

    assert caught.value.because == NO_VARIANT
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("older", "newer"), [("1.9", "1.10"), ("1", "1.0.1"), ("0", "0.0.1"), ("1.20.0rc1", "1.20.1")]
)
def test_versions_are_compared_as_numbers(older: str, newer: str) -> None:
    assert version_numbers(older) < version_numbers(newer)


def test_zeros_at_the_end_say_nothing() -> None:
    assert version_numbers("1.20.0") == version_numbers("1.20") == (1, 20)


tag_sets = st.frozensets(st.sampled_from(TAGS))


@given(st.dictionaries(st.sampled_from("abcd"), tag_sets, min_size=1), tag_sets)
def test_what_is_picked_runs_here_and_nothing_that_runs_asks_for_more(
    wanted: dict[str, frozenset[str]], device: frozenset[str]
) -> None:
    variants = {name: variant(hardware=tuple(sorted(tags))) for name, tags in wanted.items()}
    fitting = {name for name, tags in wanted.items() if tags <= device}

    if not fitting:
        with pytest.raises(ReleaseError):
            picked(variants, *device)
        return
    name = picked(variants, *device)
    assert name in fitting
    assert len(wanted[name]) == max(len(wanted[one]) for one in fitting)
    assert not missing(variants[name].requirements, device, (), {})
    assert picked(dict(reversed(variants.items())), *device) == name
