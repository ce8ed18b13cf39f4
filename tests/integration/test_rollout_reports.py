"""Reports of devices: duplicated, late, out of order, hostile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_tier.rollouts import register as register_module
from cloud_tier.rollouts.register import Register, Sums
from cloud_tier.rollouts.reports import checked
from cloud_tier.rollouts.schema import open_file
from fakes.catalogue import Cloud
from fakes.rollout_fleet import Fleet, digest
from fakes.waiting import eventually
from runtime.assignments import MAX_REPORT_BYTES, Counted, DeviceReport, encode
from runtime.errors import MalformedBodyError, RequestError, StorageError, TierwiseError
from runtime.messages import Applied, Refused, decode_control

NOW_S = 1_800_000_000.0
OLD = digest(1)


def report(number: int = 1, epoch: int = 1, **more: Any) -> DeviceReport:
    counted = (Counted(OLD, 60.0, requests=10, errors=1),)
    return DeviceReport("d", "eu", epoch, number, OLD, "m", counted=more.pop("counted", counted),
                        **more)  # fmt: skip


@pytest.fixture
async def register(tmp_path: Path) -> AsyncIterator[Register]:
    with open_file(tmp_path) as file:
        yield Register(file, max_rows=20, max_devices=3)


async def take(register: Register, said: DeviceReport, said_s: float = NOW_S) -> str:
    return await register.hear(encode(said), f"{said.region}/{said.device}", said_s=said_s,
                               now_s=NOW_S)  # fmt: skip


async def counted(register: Register) -> Sums:
    found = await register.counted(("eu/d",), 0, NOW_S + 1)
    return found.get("eu/d", Sums())


async def test_each_report_counts_once_in_any_order(register: Register) -> None:
    results = [await take(register, report(one)) for one in (1, 1, 4, 2, 2, 3, 4, 200, 3, 199)]

    assert results == [
        "latest", "known", "latest", "late", "known", "late", "known", "latest", "known", "late",
    ]  # fmt: skip
    assert (await counted(register)).requests == 60
    (row,) = await register.devices()
    assert (row.epoch, row.number) == (1, 200)
    assert [one.report.number for one in await register.waiting(9)] == [1, 4, 200]


async def test_an_earlier_life_of_a_device_says_nothing_any_more(register: Register) -> None:
    await take(register, report(5, epoch=2, seq=7))

    assert await take(register, report(9, epoch=1, seq=9)) == "known"
    assert await take(register, report(1, epoch=3, seq=3)) == "latest"

    (row,) = await register.devices()
    # Numbers of assignments never go back, whatever a device says.
    assert (row.epoch, row.number, row.seq) == (3, 1, 7)


@given(st.lists(st.integers(0, 90), max_size=60))
def test_numbers_are_taken_once_while_they_are_near(numbers: list[int]) -> None:
    """Beside a trivially right model: a set of all numbers."""
    import sqlite3  # noqa: PLC0415 - a database in memory is enough here

    from cloud_tier.rollouts.schema import SCHEMA  # noqa: PLC0415

    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    register = Register.__new__(Register)
    Register.__init__(register, None)  # type: ignore[arg-type]
    seen: set[int] = set()
    for number in numbers:
        result = register._take(connection, report(number, counted=()), NOW_S, NOW_S)
        is_far = bool(seen) and number <= max(seen) - 62
        assert (result == "known") == (number in seen or is_far)
        seen |= set() if is_far else {number}
    connection.close()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no report"),
        (b"[]", "no report"),
        (b'{"device": "d"}', "no report"),
        (b"\xff\xfe", "no report"),
        (b"[" * 9000, "no report"),
        (b" " * (MAX_REPORT_BYTES + 1), "at most"),
        (encode(report()).replace(b'"number":1', b'"number":-1'), "no report"),
        (encode(report()).replace(b'"number":1', b'"number":1e400'), "no report"),
        (encode(report()).replace(b"60.0", b"NaN"), "no report"),
        (encode(report(seq=2**53 - 1)), "nobody counts so far"),
        (encode(report(counted=(Counted(OLD, 1, requests=1, errors=2),))), "more of"),
        (encode(report(counted=(Counted(OLD, 1, requests=1, slow=2),))), "more of"),
        (encode(report(counted=(Counted(OLD, 1, requests=10**10),))), "more of"),
        (encode(report(counted=(Counted(OLD, 1, shadowed=1, disagreed=2),))), "more of"),
        (encode(report(counted=(Counted(OLD, 1, audited=1, audited_wrong=2),))), "more of"),
    ],
)
def test_what_cannot_be_is_refused_as_a_whole(body: bytes, text: str) -> None:
    with pytest.raises(MalformedBodyError, match=text):
        checked(body, "eu/d")


def test_a_device_speaks_of_itself_alone() -> None:
    with pytest.raises(RequestError, match="eu/other speaks for eu/d"):
        checked(encode(report()), "eu/other")


@given(st.binary(max_size=400))
def test_garbage_is_named(body: bytes) -> None:
    with pytest.raises(TierwiseError):
        checked(body, "eu/d")


async def test_what_is_kept_is_bounded(register: Register) -> None:
    for one in range(3):
        said = DeviceReport(f"d{one}", "eu", 1, 1, OLD)
        await take(register, said)
    with pytest.raises(RequestError, match="one too many"):
        await take(register, DeviceReport("d3", "eu", 1, 1, OLD))
    for one in range(40):
        said = DeviceReport("d0", "eu", 1, one + 2, OLD, counted=(Counted(OLD, 1, requests=1),))
        await take(register, said, NOW_S - 300 * one)

    await register.tidy(NOW_S)

    found = await register.counted(("eu/d0",), 0, NOW_S + 1)
    assert found["eu/d0"].requests == 20
    await register.tidy(NOW_S + 31 * 86_400)
    assert await register.devices() == []
    assert await register.counted(("eu/d0",), 0, NOW_S + 1) == {}


async def test_more_reports_than_can_be_stepped_through_come_again(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register_module, "MAX_HEARD", 2)
    for one in (1, 2):
        await take(register, report(one))
    with pytest.raises(StorageError, match="2 reports of devices wait already"):
        await take(register, report(3))
    await register.done((await register.waiting(9))[-1].number)

    # Nothing of it was written, so that it counts when it comes again.
    assert await take(register, report(3)) == "latest"
    assert (await counted(register)).requests == 30


async def test_what_was_counted_long_ago_or_for_nothing_is_left_out(register: Register) -> None:
    await take(register, report(1), NOW_S - 3 * 86_400)
    await take(register, report(2, counted=(Counted("", 60.0, requests=5),)))
    await take(register, report(3, counted=(Counted(OLD, 1e300, requests=5),)))

    assert await counted(register) == Sums()
    # What was in no arm of a split is there for whoever asks for it by its name.
    apart = await register.counted(("eu/d",), 0, NOW_S + 1, only=frozenset({""}))
    assert [one.requests for one in apart.values()] == [5]


async def test_errors_and_invalid_outputs_are_not_more_than_requests(register: Register) -> None:
    both = Counted(OLD, 60.0, requests=10, errors=8, invalid=8)
    await take(register, report(1, counted=(both,)))

    assert (await counted(register)).failed == 10


async def test_what_is_refused_is_said_to_whoever_brought_it(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "repository")
    async with Fleet(tmp_path, cloud, 1) as fleet:
        (device,) = fleet.devices
        good = device.report()
        fleet.send(good)
        fleet.send(b'{"device": 1}', "eu/d00")
        fleet.send(device.report(), "eu/another")
        await eventually(lambda: len(fleet.words) == 3)
        fleet.send(good, gateway="gw2")
        await eventually(lambda: len(fleet.words) == 4)

        words = [decode_control(message.payload) for message in fleet.words]

        assert sum(isinstance(word, Applied) for word in words) == 2
        assert sorted(word.code for word in words if isinstance(word, Refused)) == [
            "bad_request",
            "malformed_body",
        ]
        refused = 'tierwise_cloud_received_items_total{kind="unknown",result="refused"}'
        assert fleet.tier.counted(refused) == 2
        assert len(await fleet.service.register.waiting(9)) == 1
        # They have ended here: nobody reads them again.
        assert await fleet.tier.received() == []
