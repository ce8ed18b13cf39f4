"""What a server of the Open Inference Protocol has answered, once it is sure to be an answer."""

from __future__ import annotations

import numpy as np

from runtime.adapters.edges import Edges
from runtime.adapters.oip_http import Reply
from runtime.codec import HTTP_HEADER_LENGTH, decode_response, parse_header_length
from runtime.errors import BackendError, RequestError
from runtime.messages import Tensors
from runtime.tensors import dtype_of

OK = 200
_SHOWN_BYTES = 200


def read_answer(edges: Edges, reply: Reply, batch: int, source: str) -> Tensors:
    """What an answer to a batch of this size says; arrays are the caller's own.

    Raises:
        BackendError: it is none, or not of this model; the text says what to do.
    """
    if reply.status != OK:
        raise BackendError(f"{source} answered {described(reply)}; look at its log")
    try:
        text = reply.headers.get(HTTP_HEADER_LENGTH.lower(), "")
        body = decode_response(reply.body, parse_header_length(text, len(reply.body)))
    except RequestError as error:
        raise BackendError(
            f"{source} gave no answer of the Open Inference Protocol ({error}); look "
            f"what answers there: {described(reply)}"
        ) from error
    found: Tensors = {}
    for edge in edges.outputs:
        array = body.outputs.get(edge.name)
        if array is None:
            raise BackendError(f"{source} left out {edge.name!r}; it gave {list(body.outputs)[:8]}")
        wanted = edge.spec.shape
        sizes = (batch, *wanted[1:]) if wanted[:1] == (-1,) else wanted
        if array.dtype.kind in "OSU" or array.dtype != dtype_of(edge.datatype):
            raise BackendError(
                f"{source}: {edge.name!r} is {array.dtype}, not {edge.datatype}; correct "
                "the manifest, or the model there"
            )
        if len(array.shape) != len(sizes) or any(
            size not in {-1, found_size}
            for size, found_size in zip(sizes, array.shape, strict=True)
        ):
            raise BackendError(
                f"{source}: {edge.name!r} has shape {list(array.shape)} for a batch of "
                f"{batch}, not {list(sizes)}; correct the manifest, or the model there"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BackendError(f"{source}: {edge.name!r} holds NaN or infinity")
        # Decoded tensors are read-only views of the body; outputs are the caller's own.
        found[edge.name] = np.array(array)
    return edges.decode(found)


def described(reply: Reply) -> str:
    """The start of an answer, for errors."""
    start = " ".join(reply.body[:_SHOWN_BYTES].decode("utf-8", "replace").split())
    return f"HTTP {reply.status} {reply.headers.get('content-type', '')}: {start!r}"
