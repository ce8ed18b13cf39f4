"""``tierwise review`` at the operators' port of a cloud tier."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.review_browser import review_port
from fakes.review_reports import report, sent
from fakes.waiting import eventually_sync
from model_zoo.catalog import bundled_model, bundled_pictures
from model_zoo.policies.collect import read_examples
from runtime.adapters.artifacts import open_model
from runtime.messages import Tensors, Tier
from tierwise.cli import main
from tierwise.review_drawing import drawn_inputs, picture_text, sparkline
from tierwise.review_weights import fit

Output = pytest.CaptureFixture[str]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Path]:
    """A port in a thread of its own, with three items."""
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with review_port(tmp_path) as port:
            for number in range(3):
                said = report(f"i{number}", chance=number / 10)
                await port.store.apply(sent(said, at_s=port.store.wall_s()))
            ready.set()
            while not stop.is_set():  # noqa: ASYNC110 the command is in another thread
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    eventually_sync(ready.is_set, 20)
    yield tmp_path / "operator.json"
    stop.set()
    thread.join(10)


def told(capsys: Output, operator: Path, *words: object, code: int = 0) -> str:
    assert main(["review", *map(str, words), "--operator", str(operator)]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def told_json(capsys: Output, operator: Path, *words: object) -> Any:
    return json.loads(told(capsys, operator, *words, "--json"))


def test_items_are_listed_shown_labelled_and_exported(
    operator: Path, capsys: Output, tmp_path: Path
) -> None:
    listed = told(capsys, operator, "list").splitlines()
    shown = told(capsys, operator, "show", "i0", "--who", "ann", "--save", tmp_path / "one.npz")
    said = told(capsys, operator, "label", "i0", "owl", "--who", "ann")
    taken = told_json(capsys, operator, "assign", "i1", "--who", "ann")
    skipped = told_json(capsys, operator, "skip", "i2", "--who", "ann", "--why", "dark")
    again = told_json(capsys, operator, "label", "i1", "1", "--who", "ann")
    states = told_json(capsys, operator, "list", "--in", "labelled")
    exported = told_json(capsys, operator, "export", "--output", tmp_path / "labelled.npz")
    agreement = told_json(capsys, operator, "agreement")

    assert [line.split()[0] for line in listed[1:4]] == ["i0", "i1", "i2"]
    assert "label_name" not in shown
    assert "@" in shown
    assert np.load(tmp_path / "one.npz")["image"].shape == (1, 28, 28)
    assert "i0: counted, now labelled" in said
    assert "cloud       owl" in said
    assert (taken["outcome"], skipped["outcome"], again["outcome"]) == (
        "taken", "counted", "counted",
    )  # fmt: skip
    assert [one["item"] for one in states["items"]] == ["i0", "i1"]
    assert exported["examples"] == 2
    assert agreement == {"pairs": []}
    examples = read_examples(str(tmp_path / "labelled.npz"))
    assert list(examples.labels) == [2, 1]
    assert examples.inputs["image"].shape == (2, 28, 28)
    with np.load(tmp_path / "labelled.npz") as arrays:
        assert list(arrays["who"]) == [b"ann", b"ann"]
        assert list(arrays["agreement"]) == [1.0, 1.0]
        assert list(arrays["items"]) == [b"i0", b"i1"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("show", "nothing"), 1, "no review"),
        (("label", "i0", "cow"), 2, "no label"),
        (("label", "i0"), 2, "which label"),
        (("label",), 2, "terminal"),
        (("export", "--output", "none.npz"), 3, "nothing is labelled"),
    ],
)
def test_what_cannot_be_done_is_said(
    operator: Path, capsys: Output, words: tuple[str, ...], code: int, text: str
) -> None:
    assert text in told(capsys, operator, *words, code=code)


def test_pictures_and_series_on_a_terminal() -> None:
    wide: Tensors = {"image": np.full((1, 100, 300, 3), 255, np.uint8)}
    series: Tensors = {"signal": np.arange(200, dtype=np.float32)[None]}

    assert {len(line) for line in drawn_inputs(wide).splitlines()[1:]} == {56}
    assert drawn_inputs(series).splitlines()[1].startswith("▁")
    assert drawn_inputs(series).splitlines()[1].endswith("█")
    assert drawn_inputs({}) == "no inputs here"
    assert sparkline([None, None]) == "  "
    assert sparkline([1.0, None, 1.0]) == "▁ ▁"
    assert picture_text(np.zeros((28, 28), np.uint8)).strip() == ""


def test_weights_follow_the_member_that_is_right() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    right = np.eye(3)[labels] * 4.0 + rng.normal(0, 0.5, (200, 3))
    noise = rng.normal(0, 3.0, (200, 3))

    found = fit([noise, right], labels, [1.0, 1.0], 1.0)

    assert found["weights"][1] > 0.8
    assert found["after"] < found["before"]
    assert found["held_out_after"] < found["held_out_before"]


def test_weights_of_a_real_model_are_written_only_when_told(tmp_path: Path, capsys: Output) -> None:
    pictures = bundled_pictures("test")
    num = 60
    data = tmp_path / "labelled.npz"
    np.savez(
        data,
        image=(pictures.pictures[:num] / np.float32(255)).astype(np.float32),
        labels=pictures.labels[:num].astype(np.int64),
        who=np.array([b"ann"] * num),
    )
    folder = bundled_model(Tier.EDGE)
    words = ["review", "weights", "--model", str(folder), "--data", str(data), "--json"]

    assert main(words) == 0
    dry = json.loads(capsys.readouterr().out)
    assert main([*words, "--output", str(tmp_path / "model")]) == 0
    written = json.loads(capsys.readouterr().out)

    assert "version" not in dry
    assert written["after"] <= written["before"]
    model = open_model(tmp_path / "model")
    assert model.manifest.version == written["version"]
    assert model.manifest.temperature == pytest.approx(written["temperature"])
    assert main([*words, "--output", str(tmp_path / "model")]) == 3
