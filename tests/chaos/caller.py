"""Asks an agent on this host, at a steady rate, and writes down what came of every request.

A process of its own in the agent's namespace: what it measures is what an application sees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import numpy as np

from model_zoo.catalog import bundled_pictures
from model_zoo.idx import to_pixels
from runtime.codec import HTTP_HEADER_LENGTH, encode_request

# Waited for beyond the budget before a request counts as lost.
PATIENCE_S = 20.0


def _bodies(num: int) -> list[Any]:
    pictures = to_pixels(bundled_pictures("test").pictures[:num])
    return [{"image": np.ascontiguousarray(pictures[one : one + 1])} for one in range(num)]


async def _ask(
    session: aiohttp.ClientSession,
    url: str,
    request_id: str,
    inputs: Any,
    budget_ms: float,
    output: TextIO,
) -> None:
    body, length = encode_request(
        inputs, request_id=request_id, parameters={"remaining_ms": budget_ms}
    )
    said: dict[str, Any] = {"id": request_id, "sent_s": time.time()}
    began_s = time.monotonic()
    try:
        async with session.post(
            url, data=body, headers={HTTP_HEADER_LENGTH: str(length)}
        ) as response:
            raw = await response.read()
            said["elapsed_ms"] = (time.monotonic() - began_s) * 1000
            said["status"] = response.status
            header_length = response.headers.get(HTTP_HEADER_LENGTH)
            head = json.loads(raw[: int(header_length)] if header_length else raw)
            said["answered_id"] = head.get("id")
            for name in ("outcome", "reason", "tier", "label"):
                said[name] = head.get("parameters", {}).get(name)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        said["error"] = type(error).__name__
    output.write(json.dumps(said) + "\n")


async def main(options: argparse.Namespace) -> None:
    """Waits until the agent is there, then asks."""
    inputs = _bodies(min(options.requests, 5000))
    url = f"{options.url}/v2/models/fashion/infer"
    timeout = aiohttp.ClientTimeout(total=options.budget_ms / 1000 + PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    with options.output.open("w") as output:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            began_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(options.requests):
                    await asyncio.sleep(began_s + number / options.rate - time.monotonic())
                    group.create_task(
                        _ask(
                            session,
                            url,
                            f"{options.prefix}-{number}",
                            inputs[number % len(inputs)],
                            options.budget_ms,
                            output,
                        )
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--budget-ms", type=float, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--output", type=Path, required=True)
    asyncio.run(main(parser.parse_args()))
