"""Deltas lead to the file and are small where they should be."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from fakes.onnx_files import onnx_file
from runtime.delta import apply_delta, is_worthwhile, make, make_delta
from runtime.delta.payload import pack_against
from runtime.delta.ranges import Kind
from runtime.delta.recipe import decode, decode_header
from runtime.delta.segments import Against, Copy, Pooled, Residual, Segment

BUNDLED = Path(__file__).parents[2] / "model_zoo" / "bundled" / "fashion"
MB = 1 << 20
FP32, INT8 = Kind(4, is_float=True), Kind(1)
Floats = npt.NDArray[np.float32]


def rebuilt(old: bytes, delta: bytes, new: bytes) -> bytes:
    digest = hashlib.sha256(new).hexdigest()
    return apply_delta(old, delta, sha256=digest, size_bytes=len(new))


def share(old: bytes, new: bytes) -> float:
    """What the delta takes of the new file, after it was applied."""
    delta = make_delta(old, new)
    assert rebuilt(old, delta, new) == new
    return len(delta) / len(new)


def segments(old: bytes, delta: bytes) -> tuple[Segment, ...]:
    header, reader = decode_header(delta)
    return decode(header, reader, len(old)).segments


def normal(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"", b""), (b"", b"x"), (b"x", b""), (b"x", b"x"), (b"abc", b"abcd"), (b"a", bytes(9999))],
)
def test_files_of_any_kind_come_back(old: bytes, new: bytes) -> None:
    assert rebuilt(old, make_delta(old, new), new) == new


def test_the_same_file_takes_next_to_nothing() -> None:
    file = (BUNDLED / "cloud" / "wide.onnx").read_bytes()

    assert len(make_delta(file, file)) < 150


def test_a_large_dictionary_is_really_used() -> None:
    """A raw dictionary with tables that are too small does nothing, and a round trip hides it."""
    old = np.random.default_rng(1).bytes(3 * MB)
    new = old[2 * MB :] + b"between" + old[: 2 * MB]

    assert len(pack_against(new, old, 3)) < 0.001 * len(new)
    assert share(old, new) < 0.001


@pytest.mark.parametrize(
    ("sigma", "limit"), [(0.0, 0.001), (1e-4, 0.45), (1e-3, 0.56), (1e-2, 0.67)]
)
def test_small_changes_of_all_weights_are_less_than_the_file(sigma: float, limit: float) -> None:
    weights = normal(300, 400)
    moved = weights + sigma * normal(300, 400, seed=2)

    assert share(onnx_file({"w": weights}), onnx_file({"w": moved})) < limit


def test_scattered_changes_take_about_their_share() -> None:
    weights = normal(300, 400)
    is_moved = np.random.default_rng(3).random(weights.shape) < 0.05
    moved = np.where(is_moved, weights * np.float32(1.01), weights)

    assert share(onnx_file({"w": weights}), onnx_file({"w": moved})) < 0.055


def test_an_edit_of_a_bundled_model_is_small() -> None:
    old = (BUNDLED / "cloud" / "wide.onnx").read_bytes()
    model = onnx.load_from_string(old)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.int8 and array.size > 1:
            step = np.random.default_rng(1).random(array.shape) < 0.1
            tensor.raw_data = (
                np.where(step & (array < 127), array + 1, array).astype("i1").tobytes()
            )

    assert share(old, model.SerializeToString()) < 0.075


def test_tensors_that_have_moved_and_been_renamed_are_copied() -> None:
    arrays = [normal(100, 100, seed=seed) for seed in range(6)]
    old = onnx_file({f"w{number}": array for number, array in enumerate(arrays)})
    new = onnx_file({f"layer.{number}": array for number, array in enumerate(arrays[::-1])})

    assert share(old, new) < 0.002


def test_renamed_tensors_are_known_by_their_content() -> None:
    arrays = [normal(100, 100, seed=seed) for seed in range(6)]
    old = onnx_file({f"w{number}": array for number, array in enumerate(arrays)})
    moved = [array + 1e-4 * normal(100, 100, seed=9) for array in arrays[::-1]]
    new = onnx_file({f"layer.{number}": array for number, array in enumerate(moved)})

    assert share(old, new) < 0.5


def test_another_number_format_follows_from_the_old_values() -> None:
    weights = normal(300, 400)
    old = onnx_file({"w": weights})
    as_int8 = np.rint(weights * 127 / np.abs(weights).max()).astype(np.int8)

    assert share(old, onnx_file({"w_quantized": as_int8})) < 0.01
    assert share(old, onnx_file({"w": weights.astype(np.float16)})) < 0.05


def test_a_tensor_that_has_grown_is_compared_as_far_as_it_goes() -> None:
    weights, more = normal(100, 100), normal(10, 100, seed=2)
    grown = np.concatenate([weights + 1e-4 * normal(100, 100, seed=3), more])

    assert share(onnx_file({"w": weights}), onnx_file({"w": grown})) < 0.55


def test_raw_weights_without_a_known_format_are_compared_as_floats() -> None:
    weights = normal(300, 400)
    moved = weights + 1e-4 * normal(300, 400, seed=2)

    assert share(weights.tobytes(), moved.tobytes()) < 0.45


def test_large_tensors_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "MAX_ELEMENTS", 1000)
    weights = normal(55, 55)
    moved = weights + 1e-4 * normal(55, 55, seed=2)
    old, new = onnx_file({"w": weights}), onnx_file({"w": moved})

    delta = make_delta(old, new)

    assert rebuilt(old, delta, new) == new
    assert [part.length for part in segments(old, delta) if isinstance(part, Residual)] == [
        4000,
        4000,
        4000,
        100,
    ]


@pytest.mark.parametrize("level", [1, 3, 22])
def test_every_level_leads_to_the_file(level: int) -> None:
    old = onnx_file({"w": normal(60, 60)})
    new = onnx_file({"w": normal(60, 60) * np.float32(1.001)})

    assert rebuilt(old, make_delta(old, new, level=level), new) == new


def test_floats_that_are_no_numbers_come_back_bit_by_bit() -> None:
    rng = np.random.default_rng(1)
    for width in (2, 4, 8):
        bits = [rng.integers(0, 256, width * 500, np.uint8).tobytes() for _ in range(2)]
        arrays = [np.frombuffer(one, f"f{width}") for one in bits]
        old, new = (onnx_file({"w": array}) for array in arrays)
        assert rebuilt(old, make_delta(old, new), new) == new


def test_memory_to_make_and_apply_is_a_small_multiple_of_a_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make, "MAX_ELEMENTS", MB // 8)
    monkeypatch.setattr(make, "MAX_WHOLE_BYTES", 0)
    weights = normal(1024, 1024)
    old = onnx_file({"w": weights})
    new = onnx_file({"w": weights + 1e-3 * normal(1024, 1024, seed=2)})
    delta = make_delta(old, new, level=3)

    tracemalloc.start()
    try:
        make_delta(old, new, level=3)
        _, made = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        rebuilt(old, delta, new)
        _, applied = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Pieces are of 0.5 MB; beside them are the delta, as parts and as one, the new file, and what
    # bz2 needs, 8 MB. Without pieces it would be 90 MB.
    assert made < 2 * len(delta) + 16 * MB
    assert applied < 2 * len(new) + 8 * MB


def test_a_delta_that_is_nearly_the_file_is_not_worthwhile() -> None:
    assert is_worthwhile(80, 100)
    assert not is_worthwhile(81, 100)
    assert not is_worthwhile(1, 0)


def test_what_is_between_tensors_is_one_segment_where_tensors_are_small() -> None:
    old = onnx_file({"w": normal(60, 60)})
    new = onnx_file({"a": normal(3), "b": normal(3), "w": normal(60, 60), "c": normal(3)})

    delta = make_delta(old, new)

    assert rebuilt(old, delta, new) == new
    kinds = [type(part) for part in segments(old, delta)]
    assert kinds in ([Pooled, Copy, Pooled], [Against])


def test_pieces_that_continue_one_another_are_merged() -> None:
    parts: list[Segment] = [Copy(2, 5), Copy(3, 7), Copy(1, 0), Pooled(2), Pooled(4), Copy(1, 1)]

    assert make._merged(parts) == [Copy(5, 5), Copy(1, 0), Pooled(6), Copy(1, 1)]
