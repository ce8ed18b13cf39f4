"""``tierwise infer``: asks a running agent about a picture and shows how the answer came about."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tierwise.cli.output import note, say, say_json, say_table

if TYPE_CHECKING:
    from runtime.messages import Tensors

DEFAULT_URL = "http://127.0.0.1:8470"
GIVE_UP_S = 5.0


class Question(NamedTuple):
    """What is asked: a batch of one; ``truth`` and ``drawing`` are empty where there are none."""

    model: str
    inputs: Tensors
    truth: str = ""
    drawing: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--image", type=Path, metavar="FILE", help="a picture file, or .npy 28 x 28")
    which.add_argument(
        "--index", type=int, metavar="N", help="the N-th bundled test picture, or example of --data"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="labelled examples of your own, an .npz"
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"the agent to ask (default {DEFAULT_URL}; when none listens there, the bundled "
        "edge model answers in this process)",
    )
    parser.add_argument("--model", help="its name (default: fashion; with --data, what is served)")
    parser.add_argument(
        "--budget-ms", type=float, default=100.0, metavar="MS", help="default %(default)g"
    )
    parser.add_argument(
        "--residency",
        choices=("device", "region", "cloud"),
        default="cloud",
        help="the furthest tier that may see the picture (default %(default)s)",
    )
    parser.add_argument(
        "--context",
        type=entry,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="something for the rules of the policy to look at: a number, true, false or text; it "
        "stays at the agent; may be given again",
    )
    parser.add_argument(
        "--explain", action="store_true", help="say why each tier did what it did, in words"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def entry(text: str) -> tuple[str, str | float | bool]:
    """An entry of a context: the value is a number or a truth where it reads as one.

    Raises:
        ArgumentTypeError: there is no ``=``, or nothing before it.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE, such as shift=night")
    if value in ("true", "false"):
        return key, value == "true"
    try:
        number = float(value)
    except ValueError:
        return key, value
    return key, number if math.isfinite(number) else value


def run(arguments: argparse.Namespace) -> int:
    """Asks and prints; exit code 1 when there is no answer."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    question = await _question(arguments)
    began_s = time.perf_counter()
    said = await _ask(arguments, question)
    said["round_trip_ms"] = round((time.perf_counter() - began_s) * 1000, 2)
    said["provenance"] = json.loads(said.get("provenance", "[]"))
    explanation = said.pop("explanation", "")
    if explanation and arguments.json:
        said["explanation"] = json.loads(explanation)
    if question.truth:
        said["true_label"] = question.truth
    if arguments.json:
        say_json(said)
    else:
        if question.drawing:
            say(question.drawing)
        _show(said)
        if arguments.explain:
            _show_explanation(explanation)
    return 0 if said["outcome"] in ("answered", "degraded") else 1


async def _question(arguments: argparse.Namespace) -> Question:
    # Here, so that `tierwise --help` stays quick.
    from tierwise.own_data import question_of  # noqa: PLC0415

    if arguments.data is None:
        pixels, truth = _picture(arguments)
        from tierwise.pictures import drawn  # noqa: PLC0415

        return Question(arguments.model or "fashion", {"image": pixels[None]}, truth, drawn(pixels))
    if arguments.index is None:
        from runtime.errors import InvalidTensorError  # noqa: PLC0415

        raise InvalidTensorError("--data goes with --index, the number of the example")
    base = (arguments.url or DEFAULT_URL).rstrip("/")
    return await question_of(arguments.data, arguments.index, base, arguments.model)


def _picture(arguments: argparse.Namespace) -> tuple[Any, str]:
    from model_zoo.catalog import LABELS, bundled_pictures  # noqa: PLC0415
    from runtime.errors import InvalidTensorError  # noqa: PLC0415
    from tierwise.pictures import read_picture  # noqa: PLC0415

    if arguments.image is not None:
        return read_picture(arguments.image), ""
    split = bundled_pictures("test")
    if not 0 <= arguments.index < len(split.labels):
        raise InvalidTensorError(f"--index goes from 0 to {len(split.labels) - 1}")
    pixels = split.pictures[arguments.index].astype("float32") / 255
    return pixels, LABELS[split.labels[arguments.index]]


async def _ask(arguments: argparse.Namespace, question: Question) -> dict[str, Any]:
    import aiohttp  # noqa: PLC0415

    from runtime.errors import UnavailableError  # noqa: PLC0415

    try:
        return await _over_http(arguments, question)
    except (TimeoutError, aiohttp.ServerDisconnectedError) as error:
        raise UnavailableError("the agent did not reply; its log says why") from error
    except aiohttp.ClientConnectorError as error:
        if arguments.url or arguments.data:
            raise UnavailableError(
                f"no agent answers at {arguments.url or DEFAULT_URL}: {error}; "
                "start one with: tierwise agent run --config FILE"
            ) from error
    note(f"no agent listens at {DEFAULT_URL}; the bundled edge model answers in this process")
    return await _in_process(arguments, question)


async def _over_http(arguments: argparse.Namespace, question: Question) -> dict[str, Any]:
    import aiohttp  # noqa: PLC0415

    from tierwise import client  # noqa: PLC0415

    async with aiohttp.ClientSession() as session:
        # An error body raises with the text that the agent sent.
        response = await client.infer(
            session,
            (arguments.url or DEFAULT_URL).rstrip("/"),
            question.model,
            question.inputs,
            parameters={
                "remaining_ms": arguments.budget_ms,
                "residency": arguments.residency,
                # An agent of an earlier version would not mind, but has no use for it either.
                **({"explain": True} if arguments.explain else {}),
                **{f"context.{key}": value for key, value in arguments.context},
            },
            timeout_s=arguments.budget_ms / 1000 + GIVE_UP_S,
        )
    return dict(response.parameters)


async def _in_process(arguments: argparse.Namespace, question: Question) -> dict[str, Any]:
    from edge_agent.agent import Agent  # noqa: PLC0415
    from edge_agent.settings import EdgeSettings  # noqa: PLC0415
    from runtime.adapters.memory_bus import MemoryBroker, MemoryBus  # noqa: PLC0415
    from runtime.common_settings import (  # noqa: PLC0415
        EscalationSettings,
        LogSettings,
        StateSettings,
    )
    from runtime.exchange.context import check_context  # noqa: PLC0415
    from runtime.exchange.wire import answer_parameters  # noqa: PLC0415
    from runtime.logs import configure_logs  # noqa: PLC0415
    from runtime.messages import InferenceRequest  # noqa: PLC0415

    configure_logs(LogSettings(level="warning", format="console"))
    with tempfile.TemporaryDirectory(prefix="tierwise-") as folder:
        settings = EdgeSettings(
            agent="infer",
            region="local",
            state=StateSettings(folder=folder),
            escalation=EscalationSettings(enabled=False),
        )
        # No broker is asked for: the answer is this process's own.
        bus = MemoryBus(MemoryBroker(), client_id="infer")
        async with Agent(settings, bus=bus) as agent:
            answer = await agent.answer(
                InferenceRequest(
                    request_id=uuid.uuid4().hex,
                    model_name=question.model,
                    inputs=question.inputs,
                    remaining_ms=arguments.budget_ms,
                    explain=arguments.explain,
                    context=check_context(dict(arguments.context)),
                )
            )
            return {**answer_parameters(answer), "explanation": answer.explanation}


def _show(said: dict[str, Any]) -> None:
    name = said.get("label_name") or said.get("result") or "no answer"
    confidence = said.get("confidence")
    sure = "" if confidence is None else f", confidence {confidence:.3f}"
    by = f" by {said['tier']}" if said.get("tier") else ""
    say(f"\n{name}: {said['outcome']}{by} ({said['reason']}){sure}")
    if "notice" in said:
        from runtime.core.reasons import printable  # noqa: PLC0415 - rarely needed

        say(printable(said["notice"]))
    if "true_label" in said:
        say(f"true label: {said['true_label']}")
    say(f"{said['latency_ms']:.2f} ms in the agent, {said['round_trip_ms']:.2f} ms round trip\n")
    rows = [
        (
            hop["tier"],
            hop["site"],
            f"{hop['model_name']} {hop['model_version']}",
            hop["reason"],
            "" if hop.get("confidence") is None else f"{hop['confidence']:.3f}",
            f"{hop.get('service_us', 0) / 1000:.2f}",
        )
        for hop in said["provenance"]
    ]
    say_table(("TIER", "SITE", "MODEL", "DECIDED BECAUSE", "CONFIDENCE", "MS"), rows, right=2)


def _show_explanation(explanation: str) -> None:
    import msgspec  # noqa: PLC0415

    from runtime.core.story import paragraphs  # noqa: PLC0415
    from runtime.exchange.explaining import parse_story  # noqa: PLC0415

    if not explanation:
        note("the agent explains nothing: it is of an earlier version")
        return
    try:
        story = parse_story(explanation)
    except msgspec.DecodeError as error:
        note(f"the agent's explanation cannot be read: {error}")
        return
    say("")
    for line in paragraphs(story):
        say(line)
