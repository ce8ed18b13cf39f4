"""Frames between two processes: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.adapters.tensor_frames import MAX_BODY_BYTES, Channel, Frame, FrameError
from runtime.errors import InvalidTensorError
from runtime.messages import TensorSpec

DTYPES = st.sampled_from(["?", "u1", "i1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
Pair = tuple[Channel, Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two channels, and the socket under the first one."""
    one, other = socket.socketpair()
    channels = Channel(one), Channel(other)
    yield *channels, one
    for channel in channels:
        channel.close()


def framed(header: bytes, num_body: int, body: bytes = b"", mark: bytes = b"TWF1") -> bytes:
    return struct.pack("<4sIQ", mark, len(header), num_body) + header + body


def header_of(*specs: TensorSpec) -> bytes:
    return msgspec.msgpack.encode(Frame("done", tensors=specs))


@given(arrays=st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tensors_come_out_as_they_went_in(pair: Pair, arrays: dict[str, np.ndarray]) -> None:
    one, other, _ = pair

    one.send(Frame("run", text="a", code="b", data=b"c"), arrays, time.monotonic() + 5)
    received = other.receive(time.monotonic() + 5)

    assert received is not None
    frame, tensors = received
    assert (frame.kind, frame.text, frame.code, frame.data) == ("run", "a", "b", b"c")
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].dtype == array.dtype
        assert tensors[name].flags.writeable


def test_a_tensor_that_is_larger_than_any_buffer_arrives(pair: Pair) -> None:
    one, other, _ = pair
    large = np.arange(5_000_001, dtype=np.float32)[::-1]
    sender = threading.Thread(target=one.send, args=(Frame("run"), {"x": large}))
    sender.start()

    received = other.receive(time.monotonic() + 10)
    sender.join()

    assert received is not None
    np.testing.assert_array_equal(received[1]["x"], large)


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage garbage garbage",
        framed(header_of(), 0, mark=b"TWF0"),
        framed(b"\xc1", 0),
        framed(msgspec.msgpack.encode(["nothing of ours"]), 0),
        framed(header_of(), 8, bytes(8)),
        framed(header_of(TensorSpec("x", "FP32", (2,))), 16, bytes(16)),
        framed(header_of(TensorSpec("x", "FP99", (2,))), 8, bytes(8)),
        framed(header_of(TensorSpec("x", "BYTES", (2,))), 8, bytes(8)),
        framed(header_of(TensorSpec("x", "FP32", (-2,))), 8, bytes(8)),
        framed(header_of(TensorSpec("x", "FP32", (2**40, 2**40))), 8, bytes(8)),
        struct.pack("<4sIQ", b"TWF1", 2**31, 0),
        struct.pack("<4sIQ", b"TWF1", 1, MAX_BODY_BYTES + 1),
    ],
)
def test_what_is_no_frame_is_refused_without_waiting_for_more(pair: Pair, sent: bytes) -> None:
    _, other, raw = pair
    raw.sendall(sent)

    with pytest.raises(FrameError):
        other.receive(time.monotonic() + 5)


@given(st.binary(min_size=16, max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_garbage_is_ever_a_frame(sent: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(sent)
        one.shutdown(socket.SHUT_WR)

        with pytest.raises(FrameError):
            Channel(other).receive(time.monotonic() + 5)


@pytest.mark.parametrize("length", [1, 15, 20])
def test_an_end_in_the_middle_is_no_frame_and_one_between_frames_is_the_end(
    pair: Pair, length: int
) -> None:
    one, other, raw = pair
    one.send(Frame("done"))
    raw.sendall(framed(header_of(), 0)[:length])
    one.finish()

    assert other.receive() is not None
    with pytest.raises(FrameError, match="middle"):
        other.receive()
    assert other.receive() is None


def test_another_byte_order_arrives_as_the_same_numbers(pair: Pair) -> None:
    one, other, _ = pair
    one.send(Frame("run"), {"x": np.array([1.5, 2.5], ">f4")})

    received = other.receive()

    assert received is not None
    assert received[1]["x"].tolist() == [1.5, 2.5]


def test_waiting_ends_with_the_time(pair: Pair) -> None:
    one, other, raw = pair
    raw.sendall(framed(header_of(), 0)[:10])

    with pytest.raises(TimeoutError):
        other.receive(time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):
        one.send(Frame("run"), {"x": np.zeros(50_000_000, np.uint8)}, time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):
        other.receive(time.monotonic() - 1)


def test_a_type_without_a_name_is_not_sent(pair: Pair) -> None:
    one, _, _ = pair

    with pytest.raises(InvalidTensorError):
        one.send(Frame("run"), {"x": np.zeros(1, np.complex64)})
    with pytest.raises(InvalidTensorError):
        one.send(Frame("run"), {"x": np.array(["text"])})
