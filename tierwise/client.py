"""Asks an agent over HTTP: one question of the Open Inference Protocol in its binary form."""

from __future__ import annotations

import aiohttp

from runtime.codec import (
    HTTP_HEADER_LENGTH,
    Parameters,
    ResponseBody,
    decode_response,
    encode_request,
    parse_header_length,
)
from runtime.messages import Tensors


async def infer(
    session: aiohttp.ClientSession,
    base: str,
    model: str,
    inputs: Tensors,
    *,
    parameters: Parameters,
    timeout_s: float,
) -> ResponseBody:
    """The response of the agent at ``base``.

    Raises:
        aiohttp.ClientError: nobody is there, or the connection ended.
        TimeoutError: no response within ``timeout_s``.
        RequestError: the agent refused; the text is the agent's.
    """
    body, header_length = encode_request(inputs, parameters=parameters)
    async with session.post(
        f"{base}/v2/models/{model}/infer",
        data=body,
        headers={HTTP_HEADER_LENGTH: str(header_length)},
        timeout=aiohttp.ClientTimeout(total=timeout_s),
    ) as response:
        raw = await response.read()
        length = parse_header_length(response.headers.get(HTTP_HEADER_LENGTH, ""), len(raw))
    return decode_response(raw, length)
