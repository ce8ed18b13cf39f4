"""Assignments that are not taken: each refusal has a name, and what serves goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner

from edge_agent.agent import Agent
from fakes.catalogue import NOW_S
from fakes.models import linear_model
from fakes.updating import (
    DAY_S,
    MODEL,
    Load,
    Plant,
    comes_to,
    counted,
    example,
    plant_in,
    reason_of,
    reports_of,
    serves,
    state_of,
)
from fakes.waiting import eventually
from runtime.adapters.assignment_signatures import signed
from runtime.adapters.clock import SystemClock
from runtime.assignments import Assignment, Do, SignedAssignment, decode_signed, encode
from runtime.core.floors import raise_floor
from runtime.core.rollout_states import Execution
from runtime.messages import Outcome


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_in(tmp_path) as plant:
        yield plant


def refusals(agent: Agent, reason: str) -> float:
    return counted(agent, f'tierwise_edge_update_refusals_total{{reason="{reason}"}}')


def forged(plant: Plant, path: str) -> bytes:
    """By whoever has a key, but not one that the catalogue names."""
    return signed(plant.order(5, path=path), CryptoSigner.generate_ed25519())


def altered(plant: Plant, path: str) -> bytes:
    """Signed, and then made to say something else."""
    message = decode_signed(signed(plant.order(5, path=path), plant.signer))
    body = message.body.replace(b'"seq":5', b'"seq":9')
    return encode(SignedAssignment(body, message.key_id, message.signature))


def for_another(plant: Plant, path: str) -> bytes:
    return signed(plant.order(5, path=path, device="camera-2"), plant.signer)


def another_regions(plant: Plant, path: str) -> bytes:
    return signed(plant.order(5, path=path, region="far"), plant.signer)


def rubbish(_: Plant, __: str) -> bytes:
    return b"\xff{not json"


def endless(_: Plant, __: str) -> bytes:
    return b"[" * 100_000


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (forged, "unknown_key"),
        (altered, "bad_signature"),
        (for_another, "other_device"),
        (another_regions, "other_device"),
        (rubbish, "malformed"),
        (endless, "malformed"),
    ],
)
async def test_what_nobody_who_may_assign_has_said_changes_nothing(
    plant: Plant, make: Callable[[Plant, str], bytes], reason: str
) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent, Load(agent):
        plant.say(make(plant, path))
        await eventually(lambda: refusals(agent, reason))

        assert state_of(agent) == ""
        assert serves(agent) == "factory"
        assert (await agent.infer(example(), budget_ms=5000)).outcome is Outcome.ANSWERED
        # And the next true one is taken all the same.
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)


async def test_an_older_assignment_is_a_replay_and_the_same_one_a_repetition(plant: Plant) -> None:
    one, two = plant.publish(1), plant.publish(2)
    async with plant.agent() as agent, Load(agent):
        plant.assign(4, two)
        await comes_to(agent, Execution.CONFIRMED)
        plant.assign(3, one)
        await eventually(lambda: refusals(agent, "replayed"))
        plant.assign(4, two)
        await eventually(lambda: counted(agent, "tierwise_edge_update_repetitions_total"))

        assert serves(agent) == "v2"
        assert state_of(agent) == "confirmed"


async def test_an_assignment_that_is_void_is_refused_and_that_is_told(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent:
        plant.assign(1, path, not_after_s=NOW_S - 1)
        await comes_to(agent, Execution.REJECTED)

        assert reason_of(agent).startswith("expired:")
        assert (await reports_of(agent))[-1].seq == 1


Order = Callable[[Plant], Assignment]
REJECTED: dict[str, Order] = {
    "entry_mismatch": lambda plant: plant.order(1, path=plant.publish(1), entry_sha256="0" * 64),
    "not_in_catalogue": lambda plant: replace(
        plant.order(1, path=plant.publish(1)), path="tiny/9.json"
    ),
    "no_variant": lambda plant: plant.order(1, path=plant.publish(1, hardware=("cuda",))),
    "other_model": lambda plant: plant.order(1, path=plant.publish(1, name="other")),
    "no_way_back": lambda plant: plant.order(1, Do.ROLL_BACK, to="0" * 64),
    "no_room": lambda plant: plant.order(
        1, path=plant.publish(1, onnx=linear_model() + bytes(1 << 20), golden=False)
    ),
}


@pytest.mark.parametrize("because", REJECTED)
async def test_what_cannot_be_installed_is_rejected_by_name(plant: Plant, because: str) -> None:
    order = REJECTED[because](plant)
    async with plant.agent(plant.settings(quota_bytes=1 << 20)) as agent:
        plant.say(signed(order, plant.signer))
        await comes_to(agent, Execution.REJECTED)

        assert reason_of(agent).startswith(f"{because}:")
        assert refusals(agent, because) == 1
        assert serves(agent) == "factory"


async def test_the_most_special_variant_is_taken_by_a_device_that_has_the_hardware(
    plant: Plant,
) -> None:
    path = plant.publish(1, hardware=("cuda",))
    async with plant.agent(plant.settings(hardware="cuda aarch64")) as agent, Load(agent):
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)


async def test_below_the_floor_nothing_is_installed(plant: Plant) -> None:
    path = plant.publish(1)
    async with plant.agent() as agent:
        assert agent.updater is not None
        exchange = agent.updater._exchange
        await exchange.commit(lambda record: raise_floor(record, MODEL, 2))
        plant.assign(1, path)
        await comes_to(agent, Execution.REJECTED)

        assert reason_of(agent).startswith("below_floor:")


async def test_a_clock_in_1970_keeps_nobody_from_updating_or_from_refusing_what_is_void(
    plant: Plant,
) -> None:
    """The floor of time is the build date: what ended before that is void, the rest is not."""
    path = plant.publish(1)
    agent = plant.agent()
    agent._clock = WokeUpIn1970()
    async with agent, Load(agent):
        plant.assign(1, path, not_after_s=NOW_S - 60 * DAY_S)
        await comes_to(agent, Execution.REJECTED)
        plant.assign(2, path)
        await comes_to(agent, Execution.CONFIRMED)

        assert serves(agent) == "v1"


class WokeUpIn1970(SystemClock):
    """A device without a battery."""

    def wall_s(self) -> float:
        return super().wall_s() - NOW_S


async def test_two_devices_with_the_same_name_harm_nobody(plant: Plant) -> None:
    """A cloned disk: both hear the same numbers, and each obeys them for itself."""
    path = plant.publish(1)
    twin = plant.agent(plant.settings("twin"), client_id="twin")
    async with plant.agent() as agent, twin, Load(agent), Load(twin):
        plant.assign(1, path)
        await comes_to(agent, Execution.CONFIRMED)
        await comes_to(twin, Execution.CONFIRMED)
        plant.assign(1, path)
        await eventually(lambda: counted(twin, "tierwise_edge_update_repetitions_total"))

        assert serves(agent) == serves(twin) == "v1"
