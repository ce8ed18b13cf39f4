"""Reviews over HTTP: what a labeller sees, and when."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from cloud_tier.operators.access import read_operator_file
from cloud_tier.operators.listener import operators_listening
from cloud_tier.reviews.http_api import PREFIX, ReviewsApi
from cloud_tier.reviews.rendering import picture_of, png_of, series_of, shown
from cloud_tier.reviews.store import Bounds, ReviewStore
from cloud_tier.telemetry.database import open_engine
from fakes.review_reports import NOW_S, report, sent
from runtime.adapters.clock import SystemClock
from runtime.codec import decode_request
from runtime.errors import UnknownPageError
from runtime.messages import Tensors

SECRETS = ("label_name", "confidence", "chance", "answers", "winner", "given")


class Port:
    """The operators' port with a store of reviews behind it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, store: ReviewStore) -> None:
        self.url, self.session, self.store = url, session, store

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        async with self.session.get(f"{self.url}{PREFIX}{path}", params=query) as response:
            return response.status, await response.json()

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.session.post(f"{self.url}{PREFIX}{path}", json=body) as response:
            return response.status, await response.json()

    async def done(self, path: str, **body: Any) -> Any:
        status, said = await self.post(path, **body)
        assert status == 200, said
        return said


@pytest.fixture(params=[False])
def shows(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def port(tmp_path: Path, shows: bool) -> AsyncIterator[Port]:
    engine = open_engine(f"sqlite:///{tmp_path / 'telemetry.sqlite'}")
    store = ReviewStore(engine, Bounds(), wall_s=lambda: NOW_S)
    api = ReviewsApi(store, shows_answers=shows)
    folder = tmp_path / "state"
    folder.mkdir()
    async with operators_listening(folder, 0, SystemClock(), [api.add_routes]) as url:
        access = read_operator_file(folder / "operator.json")
        assert access is not None
        headers = {"Authorization": f"Bearer {access.token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Port(url, session, store)
    store.close()
    engine.dispose()


async def test_answers_are_nowhere_before_the_labeller_has_chosen(port: Port) -> None:
    await port.store.apply(sent(report()))
    before = [
        (await port.done("/next", who="ann"))["item"],
        (await port.get("/i1", who="ann"))[1],
        (await port.get("/i1"))[1],
        *(await port.get(""))[1]["items"],
        (await port.done("/i1/assign", who="ann"))["item"],
    ]
    labelled = await port.done("/i1/label", who="ann", label="owl", spent_s=1.5)

    for view in before:
        assert not [name for name in SECRETS if name in view]
        assert '"cloud"' not in str(view.get("answers"))
    assert labelled["outcome"] == "counted"
    after = labelled["item"]
    assert (after["label_name"], after["winner"], after["yours"]) == ("dog", 2, 2)
    assert after["answers"][1] == {"tier": "cloud", "label": 2}
    assert after["given"] == [{"who": "ann", "label": 2}]


@pytest.mark.parametrize("shows", [True], indirect=True)
async def test_they_are_there_where_the_setting_says_so(port: Port) -> None:
    await port.store.apply(sent(report()))

    item = (await port.done("/next", who="ann"))["item"]

    assert item["label_name"] == "dog"
    assert "yours" not in item


async def test_of_two_who_are_wanted_the_second_does_not_see_the_first(port: Port) -> None:
    port.store.bounds = port.store.bounds._replace(wanted=2)
    await port.store.apply(sent(report()))
    await port.done("/i1/label", who="ann", label=2)

    item = (await port.done("/next", who="bob"))["item"]

    assert not [name for name in SECRETS if name in item]
    assert item["num_labels"] == 1


async def test_moves_and_what_has_become_of_them(port: Port) -> None:
    await port.store.apply(sent(report("i1")))
    await port.store.apply(sent(report("i2")))
    said = [
        (await port.done("/i1/label", who="ann", label=0))["outcome"],
        (await port.done("/i1/undo", who="ann"))["outcome"],
        (await port.done("/i1/label", who="ann", label=1))["outcome"],
        (await port.done("/i2/skip", who="ann", why="too dark"))["outcome"],
        (await port.done("/i2/assign", who="bob"))["outcome"],
        (await port.done("/i2/label", who="bob", label=1))["outcome"],
    ]
    _, listed = await port.get("", state="labelled")
    _, agreed = await port.get("/agreement")

    assert said == ["counted", "undone", "counted", "counted", "taken", "counted"]
    assert [one["item"] for one in listed["items"]] == ["i1", "i2"]
    assert listed["states"] == {"labelled": 2}
    assert agreed == {"pairs": []}


async def test_a_list_comes_in_pages(port: Port) -> None:
    for number in range(5):
        await port.store.apply(sent(report(f"i{number}")))
    found, after = [], ""
    while True:
        _, page = await port.get("", limit="2", after=after)
        found += [one["item"] for one in page["items"]]
        after = page["next"]
        if not after:
            break

    assert found == [f"i{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/i1/label", {"who": "ann", "label": "cow"}, 400),
        ("/i1/label", {"who": "ann", "label": 3}, 400),
        ("/i1/label", {"who": "ann", "label": -1}, 400),
        ("/i1/label", {"who": "", "label": 1}, 400),
        ("/i1/label", {"who": "a\nb", "label": 1}, 400),
        ("/i1/label", {"who": "ann", "label": 1, "spent_s": -1}, 400),
        ("/i1/label", {"who": "ann"}, 400),
        ("/bare/label", {"who": "ann", "label": 1}, 400),
        ("/none/label", {"who": "ann", "label": 1}, 404),
        ("/next", {"who": "ann", "more": 1}, 400),
        ("/i1/skip", {"who": "ann", "why": "x" * 300}, 400),
    ],
)
async def test_what_cannot_be_is_refused(
    port: Port, path: str, body: dict[str, Any], status: int
) -> None:
    await port.store.apply(sent(report("i1")))
    await port.store.apply(sent(report("bare", residency="region")))

    found, said = await port.post(path, **body)

    assert found == status
    assert said["error"]["message"]
    row, _ = await port.store.find("i1")
    assert row.num_labels == 0


async def test_nothing_is_there_without_the_token(port: Port) -> None:
    await port.store.apply(sent(report()))
    async with aiohttp.ClientSession() as stranger:
        for path in ("", "/i1", "/i1/picture", "/i1/inputs", "/agreement"):
            async with stranger.get(f"{port.url}{PREFIX}{path}") as response:
                assert response.status == 401
        async with stranger.post(f"{port.url}{PREFIX}/next", json={"who": "ann"}) as response:
            assert response.status == 401


async def test_a_picture_is_a_png_a_series_is_numbers_and_inputs_are_as_they_came(
    port: Port,
) -> None:
    series: Tensors = {"signal": np.array([[[0.0, 1.0], [2.0, np.nan], [4.0, 5.0]]], np.float32)}
    await port.store.apply(sent(report("i1")))
    await port.store.apply(sent(report("i2", series)))
    async with port.session.get(f"{port.url}{PREFIX}/i1/picture") as response:
        kind, png = response.content_type, await response.read()
    _, lines = await port.get("/i2/series")
    async with port.session.get(f"{port.url}{PREFIX}/i1/inputs") as response:
        length = int(response.headers["Inference-Header-Content-Length"])
        inputs = decode_request(await response.read(), length).inputs
    missing, _ = await port.get("/i2/picture")

    assert kind == "image/png"
    assert pixels_of(png).shape == (28, 28)
    assert pixels_of(png)[27, 27] == 255
    assert lines == {"lines": [[0.0, 2.0, 4.0], [1.0, None, 5.0]]}
    assert inputs["image"].shape == (1, 28, 28)
    assert missing == 404


def pixels_of(png: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Reads a PNG of ours, and checks each chunk."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, header = 8, b"", b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(name + body)
        header = body if name == b"IHDR" else header
        data += body if name == b"IDAT" else b""
        at += 12 + length
    width, height, depth, kind = struct.unpack(">IIBB", header[:10])
    assert depth == 8
    channels = 3 if kind == 2 else 1
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    shape = (height, width) if channels == 1 else (height, width, 3)
    return rows[:, 1:].reshape(shape)


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((1, 8, 9), "picture", (8, 9)),
        ((1, 8, 9, 1), "picture", (8, 9)),
        ((1, 3, 8, 9), "picture", (8, 9, 3)),
        ((1, 8, 9, 4), "picture", (8, 9, 3)),
    ],
)
def test_pictures_of_all_shapes(shape: tuple[int, ...], kind: str, size: tuple[int, ...]) -> None:
    for dtype in (np.uint8, np.float32, np.int64, np.bool_):
        array = np.ones(shape, dtype)
        (one,) = shown({"x": array})
        assert one.kind == kind
        assert pixels_of(png_of(picture_of(array))).shape == size


def test_hostile_numbers_make_a_picture_all_the_same() -> None:
    array = np.array([[[np.nan, np.inf, -np.inf, 1e30]] * 4], np.float32)

    assert pixels_of(png_of(picture_of(array))).max() == 255


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((1, 128, 9), np.float32), "series"),
        (np.zeros((1, 40), np.float32), "series"),
        (np.zeros((2, 40), np.float32), "other"),
        (np.zeros((1, 0), np.float32), "other"),
        (np.zeros((1, 5000, 5000), np.int8), "series"),
        (np.zeros((1, 2, 3, 4, 5), np.float32), "other"),
        (np.array([[b"word"]], object), "other"),
        (np.float32(1), "other"),
    ],
)
def test_what_is_no_picture(array: Any, kind: str) -> None:
    (one,) = shown({"x": np.asarray(array)})

    assert one.kind == kind
    with pytest.raises(UnknownPageError):
        picture_of(one.array)
    if kind == "series":
        lines = series_of(one.array)
        assert len(lines) <= 16
        assert len(lines[0]) <= 2000
    else:
        with pytest.raises(UnknownPageError):
            series_of(one.array)
