"""Any two files have a delta that leads from one to the other, and no delta does any harm."""

import contextlib
import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.onnx_files import onnx_file
from runtime.delta import apply_delta, elements, make_delta
from runtime.delta.elements import Order
from runtime.delta.ranges import Kind, disjoint
from runtime.delta.scan import scan
from runtime.delta.varint import Reader, fold, put, unfold
from runtime.errors import DeltaError

DTYPES = [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int32]
KINDS = [Kind(1), Kind(2), Kind(4), Kind(8)] + [Kind(n, is_float=True) for n in (2, 4, 8)]
Tensors = dict[str, npt.NDArray[Any]]


def rebuilt(old: bytes, delta: bytes, new: bytes) -> bytes:
    digest = hashlib.sha256(new).hexdigest()
    return apply_delta(old, delta, sha256=digest, size_bytes=len(new))


@st.composite
def tensors(draw: st.DrawFn) -> Tensors:
    rng = np.random.default_rng(draw(st.integers(0, 5)))
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4))
    return {
        name: (rng.normal(0, 3, draw(st.integers(0, 300)))).astype(draw(st.sampled_from(DTYPES)))
        for name in names
    }


@st.composite
def edited(draw: st.DrawFn, before: Tensors) -> Tensors:
    """Some moved, converted, grown, dropped or renamed, in another order."""
    rng = np.random.default_rng(draw(st.integers(0, 5)))
    after: Tensors = {}
    for name in draw(st.permutations(list(before))):
        array = before[name]
        match draw(st.sampled_from(["keep", "move", "convert", "grow", "drop", "rename"])):
            case "keep":
                after[name] = array
            case "move":
                is_moved = rng.random(len(array)) < draw(st.sampled_from([0.05, 1.0]))
                after[name] = np.where(is_moved, array * array.dtype.type(2), array)
            case "convert":
                after[name] = array.astype(np.float32).astype(np.float16)
            case "grow":
                after[name] = np.concatenate([array, array[: len(array) // 3]])
            case "rename":
                after[f"{name}.weight"] = array
            case _:
                pass
    return after


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_any_two_files_have_a_delta(old: bytes, new: bytes) -> None:
    assert rebuilt(old, make_delta(old, new), new) == new


@given(st.binary(max_size=2000), st.data())
def test_spliced_files_have_a_delta(old: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(old)), min_size=3, max_size=3)))
    new = old[cuts[1] : cuts[2]] + data.draw(st.binary(max_size=20)) + old[: cuts[0]] * 2

    assert rebuilt(old, make_delta(old, new), new) == new


@settings(max_examples=60)
@given(st.data(), st.sampled_from([1, 3, 12, 19]))
def test_edited_models_have_a_delta(data: st.DataObject, level: int) -> None:
    before = data.draw(tensors())
    after = data.draw(edited(before))
    old, new = onnx_file(before), onnx_file(after)

    assert rebuilt(old, make_delta(old, new, level=level), new) == new


@given(st.data())
def test_a_damaged_delta_ends_in_an_error_or_the_file(data: st.DataObject) -> None:
    before = data.draw(tensors())
    old, new = onnx_file(before), onnx_file(data.draw(edited(before)))
    delta = bytearray(make_delta(old, new, level=1))
    for _ in range(data.draw(st.integers(1, 4))):
        # Behind the magic and the digests, whose damage is found at once.
        delta[data.draw(st.integers(69, len(delta) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(DeltaError):
        assert rebuilt(old, bytes(delta), new) == new


@given(st.binary(max_size=500), st.binary(max_size=20), st.integers(0, 10**12))
def test_bytes_that_are_no_delta_are_refused(noise: bytes, old: bytes, size_bytes: int) -> None:
    head = b"TWDL\1" + hashlib.sha256(old).digest() + hashlib.sha256(b"new").digest()
    digest = hashlib.sha256(b"new").hexdigest()
    for delta in (noise, head + noise, head + put(size_bytes) + noise):
        with contextlib.suppress(DeltaError):
            assert apply_delta(old, delta, sha256=digest, size_bytes=size_bytes) == b"new"


@given(st.binary(max_size=500), st.sampled_from([b"", b"TFL3"]))
def test_any_file_can_be_scanned(noise: bytes, identifier: bytes) -> None:
    file = noise[:4] + identifier + noise[4:]

    ranges = scan(file)

    assert disjoint(ranges, len(file)) == ranges


@given(st.binary(max_size=400), st.binary(max_size=400), st.sampled_from(KINDS))
def test_transforms_are_undone_bit_by_bit(left: bytes, right: bytes, kind: Kind) -> None:
    size = min(len(left), len(right)) // kind.width * kind.width
    old, new = (elements.elements(one[:size], kind) for one in (left, right))

    folded = elements.difference(new, old, kind)
    steps = elements.steps(new, kind)

    assert elements.add_difference(folded, old, kind).tobytes() == new.tobytes()
    assert elements.add_steps(steps, kind).tobytes() == new.tobytes()
    shuffled = elements.shuffle(folded)
    assert elements.unshuffle(shuffled, kind.width).tobytes() == folded.tobytes()
    packed = elements.sparse(folded)
    assert elements.unsparse(packed, len(folded), kind.width).tobytes() == folded.tobytes()
    for order in Order:
        places = elements.permutation(old, kind, order)
        taken = folded if places is None else folded[places]
        assert elements.put_back(taken, places).tobytes() == folded.tobytes()


@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_steps_between_floats_in_order_are_never_negative(one: float, other: float) -> None:
    kind = Kind(4, is_float=True)
    values = np.sort(np.array([one, other], np.float32)) + np.float32(0)

    folded = elements.steps(values.view("<u4"), kind)

    # An even number is a step up, or none.
    assert folded[1] % 2 == 0 or values[1] - values[0] == np.inf or _is_far(values)


def _is_far(values: npt.NDArray[np.float32]) -> bool:
    """Steps of more than half of all floats wrap around."""
    low, high = (int(bits) for bits in np.abs(values).view("<u4"))
    return values[0] < 0 <= values[1] and low + high >= 1 << 31


@given(st.integers(0, 2**63 - 1), st.integers(-(2**61), 2**61))
def test_numbers_come_back(number: int, signed: int) -> None:
    assert Reader(put(number)).number() == number
    assert unfold(fold(signed)) == signed
