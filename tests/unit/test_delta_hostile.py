"""Damaged and hostile deltas end in DeltaError, before they take time or memory."""

import bz2
import hashlib
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import zstandard

from fakes.onnx_files import onnx_file
from runtime.delta import apply_delta, make_delta, recipe
from runtime.delta.elements import Order
from runtime.delta.payload import Codec, pack_against, pack_zstd
from runtime.delta.ranges import Kind
from runtime.delta.recipe import encode
from runtime.delta.segments import (
    Against,
    Copy,
    Header,
    Plain,
    Pool,
    Pooled,
    Ranked,
    Recipe,
    Residual,
    Segment,
)
from runtime.delta.varint import put
from runtime.errors import ArtifactError, DeltaError

MB = 1 << 20
FP32, INT8 = Kind(4, is_float=True), Kind(1)
Floats = npt.NDArray[np.float32]
NO_POOL = Pool()


def rebuilt(old: bytes, delta: bytes, new: bytes) -> bytes:
    digest = hashlib.sha256(new).hexdigest()
    return apply_delta(old, delta, sha256=digest, size_bytes=len(new))


def normal(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


def forged(old: bytes, new: bytes, *parts: Segment, pool: Pool = NO_POOL) -> bytes:
    """A delta with the right header, and any segments."""
    header = Header(hashlib.sha256(old).digest(), hashlib.sha256(new).digest(), len(new))
    return encode(Recipe(header, pool, parts))


OLD = onnx_file({"w": normal(8, 9), "v": normal(9, 9, seed=2)})
NEW = onnx_file({"w": normal(8, 9) * np.float32(1.0001), "u": normal(9, 9, seed=3)})


def test_every_flipped_bit_ends_in_an_error_or_the_file() -> None:
    delta = make_delta(OLD, NEW)

    for position in range(8 * len(delta)):
        damaged = bytearray(delta)
        damaged[position // 8] ^= 1 << position % 8
        try:
            assert rebuilt(OLD, bytes(damaged), NEW) == NEW
        except DeltaError:
            continue


def test_every_truncation_and_every_addition_is_an_error() -> None:
    delta = make_delta(OLD, NEW)

    for length in range(len(delta)):
        with pytest.raises(DeltaError):
            rebuilt(OLD, delta[:length], NEW)
    with pytest.raises(DeltaError, match="add up"):
        rebuilt(OLD, delta + b"x", NEW)


def test_a_delta_for_another_file_says_so() -> None:
    with pytest.raises(DeltaError, match="for another file"):
        rebuilt(OLD + b"x", make_delta(OLD, NEW), NEW)


def test_a_delta_that_makes_another_file_is_refused() -> None:
    delta = make_delta(OLD, NEW)
    digest = hashlib.sha256(NEW).hexdigest()

    with pytest.raises(DeltaError, match="makes another file"):
        apply_delta(OLD, delta, sha256="0" * 64, size_bytes=len(NEW))
    with pytest.raises(DeltaError, match="makes another file"):
        apply_delta(OLD, delta, sha256=digest, size_bytes=len(NEW) + 1)
    assert apply_delta(OLD, delta, sha256=digest.upper(), size_bytes=len(NEW)) == NEW


def test_a_lie_about_the_digest_is_found_in_the_end() -> None:
    with pytest.raises(DeltaError, match="does not make the file"):
        rebuilt(b"old", forged(b"old", b"new", Copy(3, 0)), b"new")


def test_another_version_is_refused() -> None:
    delta = bytearray(make_delta(OLD, NEW))
    delta[4] = 2

    with pytest.raises(DeltaError, match="version 2"):
        rebuilt(OLD, bytes(delta), NEW)


def test_a_delta_error_is_an_artifact_error() -> None:
    assert issubclass(DeltaError, ArtifactError)


BOMB_BYTES = 1 << 30
NOUGHTS = bytes(1000)


def zstd_bomb() -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=BOMB_BYTES)
    parts = [compressor.compress(bytes(MB)) for _ in range(BOMB_BYTES // MB)]
    return b"".join(parts) + compressor.flush()


def bz2_bomb() -> bytes:
    compressor = bz2.BZ2Compressor()
    return b"".join(compressor.compress(bytes(MB)) for _ in range(16)) + compressor.flush()


def frame_without_size() -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(NOUGHTS)


def lying_frame() -> bytes:
    """A frame of a million bytes that says it has a thousand."""
    frame = pack_zstd(bytes(1_000_000), 3)
    return frame.replace((1_000_000).to_bytes(4, "little"), (1_000).to_bytes(4, "little"), 1)


@pytest.mark.parametrize(
    "make_segment",
    [
        lambda: Plain(1000, INT8, Codec.ZSTD, zstd_bomb()),
        lambda: Plain(1000, INT8, Codec.ZSTD, lying_frame()),
        lambda: Plain(1000, INT8, Codec.ZSTD, frame_without_size()),
        lambda: Plain(1000, INT8, Codec.ZSTD, pack_zstd(NOUGHTS, 3) * 2),
        lambda: Plain(1000, INT8, Codec.ZSTD, b"no frame"),
        lambda: Plain(1000, INT8, Codec.BZ2, bz2_bomb()),
        lambda: Plain(1000, INT8, Codec.BZ2, bz2.compress(NOUGHTS) * 2),
        lambda: Plain(1000, INT8, Codec.BZ2, bz2.compress(NOUGHTS)[:-1]),
        lambda: Plain(1000, INT8, Codec.BZ2, b"no stream"),
        lambda: Plain(1000, INT8, Codec.STORED, bytes(999)),
        lambda: Against(1000, 0, 1000, lying_frame()),
        lambda: Residual(1000, INT8, Order.FILE, True, 126, Codec.STORED, 0, b"\3" + bytes(125)),
        lambda: Residual(1000, INT8, Order.FILE, True, 3, Codec.STORED, 0, b"\0\0\0"),
    ],
)  # fmt: skip
def test_payloads_of_another_size_are_refused_within_bounds(
    make_segment: Callable[[], Segment],
) -> None:
    delta = forged(NOUGHTS, NOUGHTS, make_segment())

    tracemalloc.start()
    try:
        with pytest.raises(DeltaError):
            rebuilt(NOUGHTS, delta, NOUGHTS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # A few copies of the delta itself, which holds the bomb.
    assert peak < 4 * len(delta) + MB


STORED = (Codec.STORED, bytes(1000))


@pytest.mark.parametrize(
    "parts",
    [
        [Copy(BOMB_BYTES, 0)],
        [Copy(1001, 0)],
        [Copy(999, 0)],
        [Copy(1000, 1)],
        [Copy(1000, -1)],
        [Copy(0, 0), Copy(1000, 0)],
        [Copy(1000, 0), Copy(1, 0)],
        [Pooled(1000)],
        [Plain(1000, Kind(8), *STORED), Copy(1, 0)],
        [Plain(999, FP32, *STORED)],
        [Against(1000, 0, 1001, b"")],
        [Against(1000, 500, 501, b"")],
        [Residual(1000, INT8, Order.FILE, False, 1000, Codec.STORED, 1, bytes(1000))],
        [Residual(1000, INT8, Order.FILE, True, BOMB_BYTES, Codec.STORED, 0, bytes(1000))],
        [Residual(998, FP32, Order.FILE, False, 998, Codec.STORED, 0, bytes(998)), Copy(2, 0)],
        [Ranked(1000, INT8, FP32, Codec.STORED, 0, bytes(1000))],
    ],
)
def test_segments_that_break_a_rule_are_refused(parts: list[Segment]) -> None:
    with pytest.raises(DeltaError):
        rebuilt(NOUGHTS, forged(NOUGHTS, NOUGHTS, *parts), NOUGHTS)


@pytest.mark.parametrize(
    "pool",
    [
        Pool(1001, (), b""),
        Pool(1000, ((0, 1001),), b""),
        Pool(1000, ((0, 600), (500, 10)), b""),
        Pool(1000, (), b"no frame"),
        Pool(999, (), pack_zstd(bytes(999), 3)),
    ],
)
def test_pools_that_break_a_rule_are_refused(pool: Pool) -> None:
    with pytest.raises((DeltaError, ValueError)):
        rebuilt(NOUGHTS, forged(NOUGHTS, NOUGHTS, Pooled(1000), pool=pool), NOUGHTS)


def test_dictionaries_cannot_be_read_over_and_over() -> None:
    old = bytes(1000)
    parts = [Against(1, 0, 1000, pack_against(b"\0", old, 3)) for _ in range(1000)]

    with pytest.raises(DeltaError, match="too much of the old file"):
        rebuilt(old, forged(old, NOUGHTS, *parts), NOUGHTS)


def with_instructions(instructions: bytes, length: int | None = None) -> bytes:
    digest = hashlib.sha256(NOUGHTS).digest()
    packed = pack_zstd(instructions, 3)
    sizes = put(len(NOUGHTS), len(instructions) if length is None else length, len(packed))
    return b"TWDL\1" + digest + digest + sizes + packed


@pytest.mark.parametrize(
    "delta",
    [
        b"",
        b"TWD",
        b"bsdiff",
        with_instructions(bytes(10 * MB)),
        with_instructions(put(0, 1), BOMB_BYTES),
        with_instructions(put(0, 2**40)),
        with_instructions(put(0, 1, 9, 1000)),
        with_instructions(put(0, 1, 2, 1000, 4, 0, 0)),
        with_instructions(put(0, 1, 2, 1000, 0, 9, 0)),
        with_instructions(put(0, 1, 4, 1000, 0, 9, 0, 0, 0, 0)),
        with_instructions(put(0, 1, 4, 1000, 0, 0, 2, 0, 0, 0)),
        with_instructions(put(1, 2**40)),
        with_instructions(put(0, 1, 2, 1000, 0, 0, 2**40)),
        with_instructions(put(0, 1, 0, 1000, 0, 0)),
        with_instructions(b"\xff" * 100),
    ],
)
def test_instructions_that_break_a_rule_are_refused(delta: bytes) -> None:
    with pytest.raises(DeltaError):
        rebuilt(NOUGHTS, delta, NOUGHTS)


def test_a_tensor_of_more_elements_than_a_piece_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recipe, "MAX_ELEMENTS", 999)

    with pytest.raises(DeltaError, match="cannot be"):
        rebuilt(NOUGHTS, forged(NOUGHTS, NOUGHTS, Plain(1000, INT8, *STORED)), NOUGHTS)


def test_a_recipe_with_too_many_segments_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "MAX_SEGMENTS", 1)

    with pytest.raises(ValueError, match="too many"):
        forged(NOUGHTS, NOUGHTS, Copy(1, 0), Copy(999, 1))


def test_a_frame_that_ends_too_early_is_refused() -> None:
    frame = pack_zstd(np.random.default_rng(1).bytes(1000), 3)[:-5]

    with pytest.raises(DeltaError, match="decompress"):
        rebuilt(NOUGHTS, forged(NOUGHTS, NOUGHTS, Plain(1000, INT8, Codec.ZSTD, frame)), NOUGHTS)
