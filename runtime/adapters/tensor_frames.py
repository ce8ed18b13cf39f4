"""Tensors between two processes of one machine, over a stream socket.

A frame is a mark, two lengths, a msgpack header and the raw tensors, each padded to eight bytes.
What does not look like that is a ``FrameError`` before anything is allocated for it: the other side
may be a model's process that has lost its mind.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidTensorError
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import datatype_of, dtype_of, num_elements

MAX_HEADER_BYTES = 1 << 22
MAX_BODY_BYTES = 1 << 30
_MARK = b"TWF1"
_PREFIX = struct.Struct("<4sIQ")
_ALIGNMENT = 8
_PADDING = bytes(_ALIGNMENT)


class FrameError(Exception):
    """What came in is no frame."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A header. ``text`` and ``code`` are an error's, ``data`` what a start needs, as msgpack."""

    kind: Literal["start", "ready", "run", "done", "failed"]
    tensors: tuple[TensorSpec, ...] = ()
    text: str = ""
    code: str = ""
    data: bytes = b""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Frame)


class Channel:
    """One end of a socket pair; used by one thread at a time.

    Every call waits until ``until_s`` of the monotonic clock at most; None: for ever.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """For selectors."""
        return self._end.fileno()

    def send(
        self, frame: Frame, tensors: Tensors | None = None, until_s: float | None = None
    ) -> None:
        """Sends one frame; ``tensors`` are described by it.

        Raises:
            InvalidTensorError: a tensor has no datatype that could be sent.
            OSError: the other side is gone, or (``TimeoutError``) does not listen.
        """
        specs: list[TensorSpec] = []
        parts: list[memoryview | bytes] = []
        num_bytes = 0
        for name, array in (tensors or {}).items():
            datatype = datatype_of(array)
            # Before anything is sent: text has no fixed size, and byte orders differ.
            dtype = dtype_of(datatype)
            specs.append(TensorSpec(name, datatype, array.shape))
            if array.nbytes:
                flat = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
                parts += [flat.data, _PADDING[: -array.nbytes % _ALIGNMENT]]
                num_bytes += array.nbytes + (-array.nbytes % _ALIGNMENT)
        header = _ENCODER.encode(msgspec.structs.replace(frame, tensors=tuple(specs)))
        first = _PREFIX.pack(_MARK, len(header), num_bytes) + header
        self._wait_until(until_s)
        if num_bytes <= _ALIGNMENT * 1024:
            # One call and one wake-up of the other side, for what is small.
            self._end.sendall(b"".join((first, *parts)))
            return
        for part in (first, *parts):
            self._wait_until(until_s)
            self._end.sendall(part)

    def receive(self, until_s: float | None = None) -> tuple[Frame, Tensors] | None:
        """The next frame with its tensors; None when the other side has closed.

        Raises:
            FrameError: what came is no frame, or ended in the middle of one.
            OSError: the connection broke, or (``TimeoutError``) nothing came.
        """
        prefix = bytearray(_PREFIX.size)
        if not self._fill(memoryview(prefix), until_s, may_end=True):
            return None
        mark, num_header, num_body = _PREFIX.unpack(prefix)
        if mark != _MARK or num_header > MAX_HEADER_BYTES or num_body > MAX_BODY_BYTES:
            raise FrameError(f"no frame starts with {bytes(prefix)!r}")
        header = bytearray(num_header)
        self._fill(memoryview(header), until_s)
        try:
            frame = _DECODER.decode(header)
        except msgspec.DecodeError as error:
            raise FrameError(f"a header cannot be read: {error}") from error
        wanted = _sizes(frame)
        if sum(size + (-size % _ALIGNMENT) for size in wanted) != num_body:
            raise FrameError(f"{num_body} bytes are not what the header describes")
        body = np.empty(num_body, np.uint8)
        if num_body:
            self._fill(body.data, until_s)
        return frame, _unpacked(frame, wanted, body)

    def _fill(self, buffer: memoryview, until_s: float | None, *, may_end: bool = False) -> bool:
        """Receives exactly as much as fits; False when the stream ended before the first byte."""
        done = 0
        while done < len(buffer):
            self._wait_until(until_s)
            num = self._end.recv_into(buffer[done:])
            if not num:
                if may_end and not done:
                    return False
                raise FrameError("the stream ended in the middle of a frame")
            done += num
        return True

    def _wait_until(self, until_s: float | None) -> None:
        if until_s is None:
            return
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the time is over")
        self._end.settimeout(left_s)

    def close(self) -> None:
        """Ends the connection, also for whoever waits in another thread."""
        with contextlib.suppress(OSError):  # closed by the other side, or before
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()

    def finish(self) -> None:
        """Says that nothing more will be sent."""
        with contextlib.suppress(OSError):  # closed by the other side
            self._end.shutdown(socket.SHUT_WR)


def _sizes(frame: Frame) -> list[int]:
    """Bytes of each tensor that a header describes.

    Raises:
        FrameError: it describes what there cannot be.
    """
    try:
        return [
            num_elements(spec.shape) * dtype_of(spec.datatype).itemsize for spec in frame.tensors
        ]
    except InvalidTensorError as error:
        raise FrameError(f"a header describes no tensor: {error}") from error


def _unpacked(frame: Frame, sizes: list[int], body: npt.NDArray[np.uint8]) -> Tensors:
    """The tensors as views of the one buffer that was received for them."""
    tensors: Tensors = {}
    start = 0
    for spec, size in zip(frame.tensors, sizes, strict=True):
        part = body[start : start + size].view(dtype_of(spec.datatype))
        tensors[spec.name] = part.reshape(spec.shape)
        start += math.ceil(size / _ALIGNMENT) * _ALIGNMENT
    return tensors
