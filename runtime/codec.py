"""The Open Inference Protocol v2 body with the binary tensor extension, for HTTP and MQTT alike.

A body is a JSON header, then the raw tensors in the order of the header. The header's length
travels beside the body (HTTP header, MQTT user property); without it the whole body is JSON.
Nothing is allocated on the word of a header: counts and lengths are checked against the bytes that
arrived.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from runtime.errors import InvalidTensorError, MalformedBodyError, PayloadTooLargeError
from runtime.messages import Tensors
from runtime.tensors import BYTES, datatype_of, from_list, pack, unpack

MAX_TENSORS = 64
# Carries the length of the JSON header over HTTP.
HTTP_HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_SIZE = "binary_data_size"
BINARY_DATA = "binary_data"
BINARY_OUTPUT = "binary_data_output"
Parameters = dict[str, Any]


class TensorHeader(msgspec.Struct, omit_defaults=True):
    """One input or output as the JSON header describes it."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class WantedOutput(msgspec.Struct, omit_defaults=True):
    """An output that the caller names, and in which form it is wanted."""

    name: str
    parameters: Parameters = {}


class RequestHeader(msgspec.Struct, omit_defaults=True):
    """The JSON header of a request."""

    inputs: list[TensorHeader]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[WantedOutput] = []


class ResponseHeader(msgspec.Struct, omit_defaults=True):
    """The JSON header of a response."""

    model_name: str
    outputs: list[TensorHeader]
    model_version: str = ""
    id: str = ""
    parameters: Parameters = {}


class ErrorBody(msgspec.Struct):
    """What the protocol sends instead of a response."""

    error: str


class RequestBody(msgspec.Struct):
    """A decoded request. ``binary_outputs`` names those wanted as raw bytes; None means all."""

    inputs: Tensors
    id: str = ""
    parameters: Parameters = {}
    outputs: tuple[str, ...] = ()
    binary_outputs: frozenset[str] | None = frozenset()

    def wants_binary(self, name: str) -> bool:
        """Whether this output goes out as raw bytes."""
        return self.binary_outputs is None or name in self.binary_outputs


class ResponseBody(msgspec.Struct):
    """A decoded response."""

    outputs: Tensors
    model_name: str = ""
    model_version: str = ""
    id: str = ""
    parameters: Parameters = {}


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(RequestHeader).decode
_decode_response = msgspec.json.Decoder(ResponseHeader).decode
_decode_error = msgspec.json.Decoder(ErrorBody).decode


def encode_request(
    inputs: Tensors,
    *,
    request_id: str = "",
    parameters: Parameters | None = None,
    outputs: Sequence[str] = (),
    binary: bool = True,
) -> tuple[bytes, int]:
    """A request with raw tensors, asking for raw outputs: (body, header length).

    Without ``binary`` all of it is JSON, for servers that do not have the extension.

    Raises:
        InvalidTensorError: NaN or infinity, which JSON cannot carry.
    """
    headers, blobs = _pack_all(inputs, binary=None if binary else set())
    header = RequestHeader(
        inputs=headers,
        id=request_id,
        parameters={**(parameters or {}), **({BINARY_OUTPUT: True} if binary else {})},
        outputs=[WantedOutput(name) for name in outputs],
    )
    encoded = _encode(header)
    return b"".join((encoded, *blobs)), len(encoded)


def decode_request(
    body: bytes, header_length: int | None = None, *, max_bytes: int | None = None
) -> RequestBody:
    """Reads a request body.

    Args:
        body: what arrived.
        header_length: bytes of the JSON header; None when all is JSON.
        max_bytes: the limit that the tier states.

    Raises:
        PayloadTooLargeError: over ``max_bytes``.
        MalformedBodyError: the header is no JSON of a request, or its length is wrong.
        InvalidTensorError: a tensor's bytes, shape and datatype do not agree.
    """
    if max_bytes is not None and len(body) > max_bytes:
        raise PayloadTooLargeError(f"{len(body)} bytes are over the limit of {max_bytes}")
    head, raw = _split(body, header_length)
    try:
        header = _decode_request(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"the JSON header is not a request: {error}") from None
    if not header.inputs:
        raise MalformedBodyError("the request has no inputs")
    names = tuple(output.name for output in header.outputs)
    binary: frozenset[str] | None
    if header.parameters.get(BINARY_OUTPUT) is True:
        refused = {o.name for o in header.outputs if o.parameters.get(BINARY_DATA) is False}
        binary = frozenset(set(names) - refused) if names else None
    else:
        binary = frozenset(o.name for o in header.outputs if o.parameters.get(BINARY_DATA) is True)
    return RequestBody(
        inputs=_unpack_all(header.inputs, raw),
        id=header.id,
        parameters=header.parameters,
        outputs=names,
        binary_outputs=binary,
    )


def encode_response(
    outputs: Tensors,
    *,
    model_name: str,
    model_version: str = "",
    request_id: str = "",
    parameters: Parameters | None = None,
    request: RequestBody | None = None,
) -> tuple[bytes, int | None]:
    """A response: (body, header length), the length None when all of it is JSON.

    Args:
        outputs: the tensors, in order.
        model_name: as served.
        model_version: as served.
        request_id: echoed.
        parameters: outcome, provenance and the like.
        request: decides which outputs go out as raw bytes; without it all do.
    """
    binary = None if request is None else {name for name in outputs if request.wants_binary(name)}
    headers, blobs = _pack_all(outputs, binary=binary)
    encoded = _encode(
        ResponseHeader(
            model_name=model_name,
            model_version=model_version,
            id=request_id,
            parameters=parameters or {},
            outputs=headers,
        )
    )
    has_binary = any(BINARY_SIZE in header.parameters for header in headers)
    return b"".join((encoded, *blobs)), len(encoded) if has_binary else None


def decode_response(body: bytes, header_length: int | None = None) -> ResponseBody:
    """Reads a response body.

    Raises:
        MalformedBodyError: no response; an error body's text is passed on.
        InvalidTensorError: a tensor's bytes, shape and datatype do not agree.
    """
    head, raw = _split(body, header_length)
    try:
        header = _decode_response(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(_error_text(head) or f"not a response: {error}") from None
    return ResponseBody(
        outputs=_unpack_all(header.outputs, raw),
        model_name=header.model_name,
        model_version=header.model_version,
        id=header.id,
        parameters=header.parameters,
    )


def encode_error(text: str) -> bytes:
    """The protocol's error body."""
    return _encode(ErrorBody(text))


def is_error_body(body: bytes) -> bool:
    """Whether a body is the protocol's error body."""
    return bool(_error_text(body))


def _error_text(head: bytes | memoryview) -> str:
    try:
        return _decode_error(head).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def parse_header_length(text: str, body_length: int) -> int | None:
    """Reads a header length from text; empty means that all is JSON.

    Raises:
        MalformedBodyError: no number, negative, or beyond the body.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):  # noqa: PLR2004 decimal digits
        raise MalformedBodyError(f"the header length is no number of bytes: {text[:40]!r}")
    length = int(text)
    if length > body_length:
        raise MalformedBodyError(f"header length {length} is beyond the body of {body_length}")
    return length


def _split(body: bytes, header_length: int | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise MalformedBodyError(f"header length {length} is beyond the body of {len(body)}")
    return view[:length], view[length:]


def _pack_all(tensors: Tensors, binary: set[str] | None) -> tuple[list[TensorHeader], list[bytes]]:
    headers: list[TensorHeader] = []
    blobs: list[bytes] = []
    for name, array in tensors.items():
        datatype = datatype_of(array)
        header = TensorHeader(name=name, shape=list(array.shape), datatype=datatype)
        if binary is None or name in binary:
            blob = pack(array)
            header.parameters = {BINARY_SIZE: len(blob)}
            blobs.append(blob)
        else:
            header.data = _to_list(name, array.ravel().tolist(), datatype)
        headers.append(header)
    return headers, blobs


def _to_list(name: str, elements: list[Any], datatype: str) -> list[Any]:
    if datatype == BYTES:
        return [e.decode("utf-8", "replace") if isinstance(e, bytes) else e for e in elements]
    if datatype.startswith("FP") and not all(math.isfinite(element) for element in elements):
        raise InvalidTensorError(f"{name!r} holds NaN or infinity, which JSON cannot carry")
    return elements


def _unpack_all(headers: list[TensorHeader], raw: memoryview) -> Tensors:
    if len(headers) > MAX_TENSORS:
        raise MalformedBodyError(f"{len(headers)} tensors are over the limit of {MAX_TENSORS}")
    tensors: Tensors = {}
    position = 0
    for header in headers:
        if header.name in tensors:
            raise MalformedBodyError(f"tensor {header.name[:40]!r} is there twice")
        size = header.parameters.get(BINARY_SIZE)
        if size is None:
            if header.data is msgspec.UNSET:
                raise MalformedBodyError(f"tensor {header.name[:40]!r} has no data")
            tensors[header.name] = from_list(header.data, header.datatype, header.shape)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise MalformedBodyError(f"{BINARY_SIZE} of {header.name[:40]!r} is no byte count")
        if position + size > len(raw):
            raise InvalidTensorError(
                f"tensor {header.name[:40]!r} takes more than the {len(raw) - position} bytes "
                "that are left"
            )
        tensors[header.name] = unpack(
            raw[position : position + size], header.datatype, header.shape
        )
        position += size
    if position != len(raw):
        raise MalformedBodyError(f"{len(raw) - position} bytes follow the last tensor")
    return tensors
